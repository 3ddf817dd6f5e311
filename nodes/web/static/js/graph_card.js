// The network's graph, coloured by the nodes that run its blocks, with what crosses between them and its bytes.

import { paintNode } from './colours.js';
import { card, el, setAttribute, setHidden, setText, svg } from './dom.js';
import { bytes, count } from './format.js';
import { placementOf } from './graph_state.js';

const BLOCK = { width: 150, height: 22 };
const LEGIBLE = 0.55;
const LONGEST_NAME = 22;
let worker = null;
let lastJob = 0;

/** Where each block and edge goes, from the worker. */
function layoutOf(graph) {
  graph.layout ??= new Promise((resolve, reject) => {
    worker ??= new Worker('/js/graph_worker.js', { type: 'module' });
    const id = (lastJob += 1);
    const edges = edgesOf(graph);
    worker.addEventListener('message', function take({ data }) {
      if (data.id !== id) return;
      worker.removeEventListener('message', take);
      resolve({ ...data, edges });
    });
    worker.addEventListener('error', reject, { once: true });
    worker.postMessage({ id, blocks: graph.blocks.length, edges: edges.map(({ from, to }) => [from, to]), size: BLOCK });
  });
  return graph.layout;
}

/** Edges between blocks; several tensors between the same two are one edge. */
function edgesOf(graph) {
  const found = new Map();
  for (const block of graph.blocks) {
    for (const tensor of block.inputs) {
      const from = graph.producer[tensor];
      if (from < 0 || from === block.index) continue;
      const key = `${from} ${block.index}`;
      if (!found.has(key)) found.set(key, { from, to: block.index, tensors: [] });
      found.get(key).tensors.push(tensor);
    }
  }
  return [...found.values()];
}

const shorten = (name) => (name.length > LONGEST_NAME ? `${name.slice(0, 8)}…${name.slice(9 - LONGEST_NAME)}` : name);

export class GraphCard {
  constructor(app) {
    const { node, note } = card('Network');
    Object.assign(this, { app, node, note, graph: null, plan: null, layout: null, view: null });
    this.layer = svg('g');
    this.picture = svg('svg', { role: 'img', tabindex: '0', 'aria-label': 'Graph of the network’s blocks; arrow keys move, plus and minus zoom' }, this.layer);
    this.about = el('span', { role: 'status' });
    const tool = (name, label, onclick) => el('button', { type: 'button', class: 'small', 'aria-label': label, title: label, onclick }, name);
    this.tools = el('div', { class: 'tools' }, tool('+', 'Zoom in', () => this.zoom(1.4)), tool('−', 'Zoom out', () => this.zoom(1 / 1.4)), tool('Fit', 'Show all of it', () => this.fit()), tool('Cut', 'Show where it is cut', () => this.showCut()));
    this.place = el('div', { class: 'graph' }, this.picture, this.tools, el('div', { class: 'about' }, this.about));
    this.empty = el('p', { class: 'empty' });
    node.append(this.empty, this.place);
    this.listen();
  }

  listen() {
    const { picture } = this;
    picture.addEventListener('wheel', (event) => {
      if (!event.ctrlKey && document.activeElement !== picture) return; // the page scrolls, until it is clicked
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, event);
    }, { passive: false });
    picture.addEventListener('pointerdown', (event) => this.drag(event));
    picture.addEventListener('pointerover', (event) => this.tell(event.target.closest?.('.node')));
    picture.addEventListener('keydown', (event) => this.key(event));
  }

  open() {
    this.observer = new ResizeObserver(() => this.view && this.apply());
    this.observer.observe(this.place);
  }

  close() {
    this.observer.disconnect();
  }

  update({ plan, graph }) {
    setHidden(this.place, !graph || !this.layout);
    setHidden(this.empty, Boolean(graph && this.layout));
    setText(this.empty, graph ? 'Placing the blocks…' : 'The model’s manifest is not on the broker yet.');
    if (!graph || !plan) return;
    if (graph !== this.graph) {
      this.graph = graph;
      this.layout = null;
      layoutOf(graph).then((layout) => {
        if (graph !== this.graph) return;
        this.layout = layout;
        this.plan = null;
        this.build();
        this.app.wantDraw();
      }, () => setText(this.empty, 'The graph could not be placed.'));
    }
    const { places } = this.app.state;
    if (this.layout && (plan !== this.plan || places !== this.places)) {
      const isFirst = this.plan === null;
      [this.plan, this.places] = [plan, places];
      this.paint(plan, graph);
      if (isFirst) requestAnimationFrame(() => this.showCut());
    }
    setText(this.note, `${count(graph.blocks.length)} blocks, ${bytes(graph.blocks.reduce((sum, block) => sum + block.parameters, 0) * 4)} of weights`);
  }

  build() {
    const { graph, layout } = this;
    this.lines = layout.lines.map((points) => svg('path', { class: 'edge', d: `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join('L')}` }));
    this.boxes = layout.places.map(([x, y], i) => svg('g', { class: 'node', 'data-block': i },
      svg('rect', { x: x - BLOCK.width / 2, y: y - BLOCK.height / 2, width: BLOCK.width, height: BLOCK.height, rx: 4 }),
      svg('text', { x, y: y + 4 }, shorten(graph.blocks[i].name))));
    this.labels = svg('g');
    this.bars = svg('g', { class: 'workers' });
    this.layer.replaceChildren(svg('g', {}, this.lines), svg('g', {}, this.boxes), this.bars, this.labels);
  }

  paint(plan, graph) {
    const { tiers, nodes } = placementOf(graph, plan);
    this.nodes = nodes;
    this.boxes.forEach((box, i) => paintNode(box, this.app.state, nodes[i], tiers[i]));
    this.shareOut(plan.tiles);
    const seen = new Set();
    const labels = [];
    this.cutAt = null;
    this.layout.edges.forEach((edge, i) => {
      const crosses = tiers[edge.from] !== tiers[edge.to];
      setAttribute(this.lines[i], 'class', crosses ? 'edge crosses' : 'edge');
      const fresh = crosses ? edge.tensors.filter((tensor) => !seen.has(`${tensor} ${tiers[edge.to]}`)) : [];
      for (const tensor of fresh) seen.add(`${tensor} ${tiers[edge.to]}`);
      if (fresh.length === 0) return;
      const points = this.layout.lines[i];
      const [x, y] = points[Math.floor(points.length / 2)];
      this.cutAt ??= [x, y];
      labels.push(svg('text', { class: 'edgelabel', x, y: y + 4 }, bytes(fresh.reduce((sum, tensor) => sum + graph.tensors[tensor].nbytes, 0))));
    });
    this.labels.replaceChildren(...labels);
  }

  /** Under each block of a stack in tiles, a bar in the colours of the workers that share it. */
  shareOut(tiles) {
    const workers = tiles ? [...new Set(tiles.workers)] : [];
    const isShared = (i) => tiles && i >= tiles.first && i <= tiles.last && this.boxes[i].dataset.tier === 'edge';
    const bars = this.layout.places.flatMap(([x, y], i) => (isShared(i) ? workers.map((worker, place) => {
      const width = BLOCK.width / workers.length;
      const bar = svg('rect', { class: 'worker', x: x - BLOCK.width / 2 + place * width, y: y + BLOCK.height / 2 - 5, width, height: 5 });
      paintNode(bar, this.app.state, worker);
      return bar;
    }) : []));
    this.bars.replaceChildren(...bars);
    this.workers = (i) => (isShared(i) ? workers : []);
  }

  tell(box) {
    if (!box || !this.graph) return;
    const block = this.graph.blocks[Number(box.dataset.block)];
    const shapes = block.outputs.map((tensor) => this.graph.tensors[tensor]).map((tensor) => `${tensor.shape.slice(1).join('×')} (${bytes(tensor.nbytes)})`);
    this.chosen?.classList.remove('chosen');
    this.chosen = box;
    box.classList.add('chosen');
    setText(this.about, `${block.index}: ${block.name}, ${block.kind}, on ${this.nodes?.[block.index] || 'no node'}${this.sharedBy(block.index)}; ${shapes.join(', ')}${block.macs ? `; ${count(Math.round(block.macs / 1e6))} M multiply-adds` : ''}`);
  }

  sharedBy(i) {
    const workers = this.workers?.(i) ?? [];
    return workers.length ? `, in tiles on ${workers.join(', ')}` : '';
  }

  size() {
    return { width: this.place.clientWidth || 600, height: this.place.clientHeight || 400 };
  }

  fit() {
    const { width, height } = this.size();
    const scale = Math.min(width / (this.layout.width + 40), height / (this.layout.height + 40), 1.5);
    this.view = { scale, x: width / 2 - (this.layout.width / 2) * scale, y: height / 2 - (this.layout.height / 2) * scale };
    this.apply();
  }

  /** At a size that can be read, around the place where it is cut. */
  showCut() {
    if (!this.layout) return;
    const { width, height } = this.size();
    const [x, y] = this.cutAt ?? this.layout.places[0];
    const scale = Math.max(0.8, Math.min(1, width / (this.layout.width + 40)));
    this.view = { scale, x: width / 2 - x * scale, y: height / 2 - y * scale };
    this.apply();
  }

  zoom(factor, event) {
    if (!this.view) return;
    const { width, height } = this.size();
    const box = this.picture.getBoundingClientRect();
    const [x, y] = event ? [event.clientX - box.left, event.clientY - box.top] : [width / 2, height / 2];
    const scale = Math.min(4, Math.max(0.02, this.view.scale * factor));
    const real = scale / this.view.scale;
    this.view = { scale, x: x - (x - this.view.x) * real, y: y - (y - this.view.y) * real };
    this.apply();
  }

  drag(event) {
    if (!this.view) return;
    const { picture } = this;
    const start = { x: event.clientX - this.view.x, y: event.clientY - this.view.y };
    picture.setPointerCapture(event.pointerId);
    const onMove = (moved) => {
      this.view = { ...this.view, x: moved.clientX - start.x, y: moved.clientY - start.y };
      this.apply();
    };
    picture.addEventListener('pointermove', onMove);
    picture.addEventListener('pointerup', () => picture.removeEventListener('pointermove', onMove), { once: true });
    picture.addEventListener('pointercancel', () => picture.removeEventListener('pointermove', onMove), { once: true });
  }

  key(event) {
    const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.key === '+' || event.key === '=') this.zoom(1.25);
    else if (event.key === '-') this.zoom(1 / 1.25);
    else if (event.key === '0') this.fit();
    else if (event.key in moves && this.view) {
      event.preventDefault();
      const [x, y] = moves[event.key];
      this.view = { ...this.view, x: this.view.x + x, y: this.view.y + y };
      this.apply();
    }
  }

  apply() {
    const { scale, x, y } = this.view;
    setAttribute(this.layer, 'transform', `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${scale.toFixed(4)})`);
    this.layer.classList.toggle('far', scale < LEGIBLE);
  }
}
