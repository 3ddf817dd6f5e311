// The feature map that tile workers share: who computes which part of it.

import { paintNode } from './colours.js';
import { card, el, setHidden, setText, svg } from './dom.js';
import { seconds } from './format.js';

const MAP = 300;

/** From heights of rows to where each begins and ends. */
export function spans(sizes) {
  let at = 0;
  return sizes.map((size) => [at, (at += size)]);
}

export class TilesCard {
  constructor(app) {
    this.app = app;
    const { node, note } = card('Tiles');
    Object.assign(this, { node, note, shown: null });
    this.place = el('div');
    node.append(this.place);
  }

  update({ plan }) {
    const tiles = plan?.tiles ?? null;
    setHidden(this.node, tiles === null);
    if (tiles === null) return;
    const { state } = this.app;
    if (this.shown !== plan || this.shownPlaces !== state.places) {
      [this.shown, this.shownPlaces] = [plan, state.places];
      this.draw(tiles);
    }
    const all = this.measured(plan);
    const how = tiles.codecs.length ? `, sent by ${[...new Set(tiles.codecs)].join(', ')}` : '';
    setText(this.note, `${tiles.from} to ${tiles.to}, ${tiles.rows.length} × ${tiles.columns.length} tiles${how}`);
    this.labels.forEach((label, i) => setText(label, all[i]));
  }

  draw(tiles) {
    const [height, width] = [tiles.rows, tiles.columns].map((sizes) => sizes.reduce((a, b) => a + b, 0));
    const scale = MAP / Math.max(height, width, 1);
    const workers = [...new Set(tiles.workers)];
    this.labels = [];
    const cells = spans(tiles.rows).flatMap(([top, bottom], row) => spans(tiles.columns).map(([left, right], column) => {
      const number = row * tiles.columns.length + column;
      const worker = tiles.workers[number] ?? '';
      const label = svg('text', { x: ((left + right) / 2) * scale, y: ((top + bottom) / 2) * scale + 16, 'font-size': 11 });
      this.labels.push(label);
      const tile = svg('g', {},
        svg('title', {}, `tile ${number + 1} on ${worker}: rows ${top} to ${bottom}, columns ${left} to ${right}`),
        svg('rect', { x: left * scale, y: top * scale, width: (right - left) * scale, height: (bottom - top) * scale }),
        svg('text', { x: ((left + right) / 2) * scale, y: ((top + bottom) / 2) * scale, 'font-size': 13 }, worker), label);
      paintNode(tile, this.app.state, worker);
      return tile;
    }));
    const map = svg('svg', { class: 'tiles', viewBox: `-2 -2 ${width * scale + 4} ${height * scale + 4}`, role: 'img', 'aria-label': `Map of ${height} by ${width} shared by ${workers.join(', ')}` }, cells);
    this.place.replaceChildren(map);
  }

  /** What each tile took lately, from its coordinator's telemetry. */
  measured(plan) {
    const coordinator = plan.stages.find((stage) => stage.tier === 'edge')?.node;
    const telemetry = this.app.state.nodes.get(coordinator)?.telemetry ?? new Map();
    return plan.tiles.workers.map((worker, i) => {
      const took = telemetry.get(`tile.${plan.stream}.${plan.epoch}.${i + 1}.${worker}.compute_seconds_p50`);
      if (took !== undefined) (this.last ??= new Map()).set(`${plan.epoch} ${i}`, took);
      const last = this.last?.get(`${plan.epoch} ${i}`);
      return last === undefined ? '' : seconds(last);
    });
  }
}
