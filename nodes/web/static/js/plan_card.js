// The plan as a strip of blocks in order, coloured by tier. Its cuts can be dragged, priced, and then asked for.

import { card, el, setAttribute, setHidden, setText, svg } from './dom.js';
import { bytes, difference, seconds, tierName } from './format.js';
import { crossingAt, crossingBytes, cutsOf, placementOf } from './graph_state.js';

const PRICE_AFTER_MS = 150;
/** With more blocks than that, lines between them would be all that is seen. */
const DENSE = 150;
const NAMES = { edge: 'edge from', cloud: 'cloud from' };
const BAR = { top: 0, height: 46, bytesTop: 50, bytesHeight: 40 };

export class PlanCard {
  constructor(app, id) {
    const { node, note } = card('Plan');
    Object.assign(this, { app, id, node, note, graph: null, plan: null, cuts: null, isMoved: false, asked: 0 });
    this.handles = { edge: this.handle('edge'), cloud: this.handle('cloud') };
    this.picture = svg('svg', {});
    this.strip = el('div', { class: 'strip' }, this.picture, this.handles.edge.node, this.handles.cloud.node);
    this.legend = el('div', { class: 'legend' });
    this.price = el('div', { class: 'price', role: 'status', 'aria-label': 'Price of the cut' });
    this.error = el('p', { class: 'error', role: 'alert' });
    this.place = el('button', { type: 'button', class: 'main', onclick: () => this.ask('place', this.request()) }, 'Place it so');
    this.reset = el('button', { type: 'button', onclick: () => this.follow() }, 'Back to the plan');
    this.auto = el('button', { type: 'button', onclick: () => this.ask('place', { stream: id, edge_from: null, cloud_from: null, auto: true, tiles: null }) }, 'Hand it back to the planner');
    this.hint = el('p', { class: 'note' });
    this.reason = el('p', { class: 'note' });
    this.empty = el('p', { class: 'empty' });
    this.body = el('div', {}, this.strip, this.legend, this.price, this.error, el('div', { class: 'row' }, this.place, this.reset, this.auto), this.hint, this.reason);
    node.append(this.empty, this.body);
  }

  handle(tier) {
    const label = el('span');
    const node = el('button', { type: 'button', class: 'handle', role: 'slider', onpointerdown: (event) => this.drag(event, tier), onkeydown: (event) => this.key(event, tier) }, label);
    return { node, label };
  }

  update({ plan, graph, active, coming }) {
    const why = this.app.settings.why_read_only;
    setHidden(this.body, !plan || !graph);
    setHidden(this.empty, Boolean(plan && graph));
    if (!plan || !graph) {
      setText(this.empty, plan ? 'The model’s manifest is not on the broker yet, so its blocks are not known.' : 'No plan yet. The planner makes one when the stream’s device and its model are there.');
      return;
    }
    if (graph !== this.graph || plan !== this.plan) this.take(graph, plan);
    const isByHand = plan.planner === 'forced';
    setText(this.note, [isByHand ? 'placed by hand' : `${plan.planner} planner, for ${plan.objective}`, active && coming ? `epoch ${coming.epoch} is being prepared` : ''].filter(Boolean).join('; '));
    setText(this.reason, plan.reason);
    setHidden(this.auto, !isByHand);
    setHidden(this.place, !this.isMoved);
    setHidden(this.reset, !this.isMoved);
    for (const button of [this.place, this.auto]) {
      button.disabled = Boolean(why) || this.isAsking === true;
      button.title = why;
    }
    const isInOrder = this.cuts.isInOrder;
    setText(this.hint, why ? `You can look at the plan, but not change it: ${why}.` : isInOrder ? 'Drag a cut, or move it with the arrow keys, to see what it would cost. Nothing changes until you place it.' : 'This plan does not cut the blocks in their order, so its cuts are shown where each tier begins.');
    for (const tier of ['edge', 'cloud']) this.handles[tier].node.disabled = Boolean(why);
  }

  /** Show another plan or graph; a cut that a person is moving stays where it is. */
  take(graph, plan) {
    const isSame = graph === this.graph && plan.epoch === this.plan?.epoch;
    this.graph = graph;
    this.plan = plan;
    this.placement = placementOf(graph, plan);
    if (!isSame || !this.isMoved) this.follow();
  }

  follow() {
    this.isMoved = false;
    this.asked += 1;
    this.cuts = cutsOf(this.placement.tiers);
    this.planCuts = { ...this.cuts };
    this.price.replaceChildren();
    setText(this.error, '');
    this.draw();
    this.app.wantDraw();
  }

  draw() {
    const { graph } = this;
    const total = graph.blocks.length;
    const crossing = crossingBytes(graph);
    const most = Math.max(...crossing, 1);
    const parts = graph.blocks.map((block, i) => svg('rect', { class: 'block', x: i, y: BAR.top, width: 1, height: BAR.height }, svg('title', {}, `${i}: ${block.name} (${block.kind})`)));
    this.blocks = parts;
    // a root, so that the cheap places to cut are still seen beside the dear ones
    this.byteBars = Array.from(crossing, (value, at) => {
      const height = BAR.bytesHeight * Math.sqrt(value / most);
      return svg('rect', { class: 'bytes', x: at - 0.4, y: BAR.bytesTop + BAR.bytesHeight - height, width: 0.8, height }, svg('title', {}, `cut before block ${at}: ${bytes(value)} cross`));
    });
    const picture = svg('svg', { class: total > DENSE ? 'dense' : null, viewBox: `0 0 ${total} ${BAR.bytesTop + BAR.bytesHeight}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${total} blocks in order, by tier; below them the bytes that cross where they are cut` }, parts, this.byteBars);
    // the handles stay in the document: taken out, one would lose the focus or the pointer that holds it
    this.picture.replaceWith(picture);
    this.picture = picture;
    this.paint();
  }

  paint() {
    const { graph, cuts } = this;
    const total = graph.blocks.length;
    const tierAt = (i) => (i < cuts.edge ? 'device' : i < cuts.cloud ? 'edge' : 'cloud');
    this.blocks.forEach((block, i) => setAttribute(block, 'data-tier', this.isMoved ? tierAt(i) : tierName(this.placement.tiers[i])));
    this.byteBars.forEach((bar, at) => setAttribute(bar, 'class', at > 0 && at < total && (at === cuts.edge || at === cuts.cloud) ? 'bytes hot' : 'bytes'));
    for (const tier of ['edge', 'cloud']) this.paintHandle(tier, total);
    const { tensors } = graph;
    const used = new Set([cuts.edge, cuts.cloud].filter((at) => at > 0 && at < total));
    const lines = [...used].map((at) => {
      const crossing = crossingAt(graph, at);
      const nbytes = crossing.reduce((sum, tensor) => sum + tensors[tensor].nbytes, 0);
      return `before ${graph.blocks[at].name}: ${crossing.map((tensor) => tensors[tensor].name).slice(0, 3).join(', ')}${crossing.length > 3 ? ` and ${crossing.length - 3} more` : ''}, ${bytes(nbytes)}${this.isMoved ? '' : this.coded()}`;
    });
    this.legend.replaceChildren(...(lines.length ? lines : ['Nothing crosses but the answer.']).map((line) => el('span', {}, line)));
  }

  coded() {
    if (!this.plan) return '';
    const sent = [...this.plan.predicted.links.values()].map((link) => link.get('nbytes')).filter((value) => value !== undefined);
    const codecs = [...new Set(this.plan.tensors.map((tensor) => tensor.codec).filter((codec) => codec && codec !== 'none'))];
    return codecs.length ? ` (${sent.map(bytes).join(', then ')} as ${codecs.join(', ')})` : '';
  }

  paintHandle(tier, total) {
    const { node, label } = this.handles[tier];
    const at = this.cuts[tier];
    const share = (100 * at) / total;
    node.style.left = `${share}%`;
    node.classList.toggle('right', share > 75);
    node.classList.toggle('left', share < 25);
    // two at one place: the lower one's label gives way
    node.classList.toggle('empty', at >= total || (tier === 'edge' && at === this.cuts.cloud));
    const name = this.graph.blocks[at]?.name;
    setText(label, at >= total ? `no ${tier}` : `${NAMES[tier]} ${at}`);
    const described = { 'aria-label': `${NAMES[tier]} block`, 'aria-valuemin': 1, 'aria-valuemax': total, 'aria-valuenow': at, 'aria-valuetext': at >= total ? `no block on the ${tier}` : `block ${at}, ${name}` };
    for (const [key, value] of Object.entries(described)) setAttribute(node, key, value);
  }

  move(tier, to) {
    const total = this.graph.blocks.length;
    const at = Math.max(1, Math.min(total, Math.round(to)));
    if (at === this.cuts[tier]) return;
    this.cuts = { ...this.cuts, [tier]: at, isInOrder: true };
    if (this.cuts.edge > this.cuts.cloud) this.cuts[tier === 'edge' ? 'cloud' : 'edge'] = at;
    this.isMoved = this.cuts.edge !== this.planCuts.edge || this.cuts.cloud !== this.planCuts.cloud || !this.planCuts.isInOrder;
    this.paint();
    if (this.isMoved) this.wantPrice();
    else this.follow();
    this.app.wantDraw();
  }

  drag(event, tier) {
    const { node } = this.handles[tier];
    if (node.disabled) return;
    event.preventDefault();
    node.focus();
    node.setPointerCapture(event.pointerId);
    const box = this.strip.getBoundingClientRect();
    const onMove = (moved) => this.move(tier, ((moved.clientX - box.left) / box.width) * this.graph.blocks.length);
    const onUp = () => {
      node.removeEventListener('pointermove', onMove);
      node.removeEventListener('pointerup', onUp);
      node.removeEventListener('pointercancel', onUp);
    };
    node.addEventListener('pointermove', onMove);
    node.addEventListener('pointerup', onUp);
    node.addEventListener('pointercancel', onUp);
  }

  key(event, tier) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
    if (event.key === 'Escape') this.follow();
    if (!(event.key in steps)) return;
    event.preventDefault();
    const total = this.graph.blocks.length;
    this.move(tier, Math.max(1, Math.min(total, this.cuts[tier] + steps[event.key])));
  }

  request() {
    const { edge, cloud } = this.cuts;
    const total = this.graph.blocks.length;
    return { stream: this.id, edge_from: edge < cloud ? String(edge) : null, cloud_from: cloud < total ? String(cloud) : null, auto: false, tiles: null };
  }

  wantPrice() {
    this.asked += 1;
    const mine = this.asked;
    setText(this.error, '');
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.askPrice(mine), PRICE_AFTER_MS);
  }

  async askPrice(mine) {
    const { stream, edge_from, cloud_from } = this.request();
    try {
      const answer = await this.app.connection.ask(this.app.settings.planner, 'price', { stream, edge_from, cloud_from });
      if (mine === this.asked) this.price.replaceChildren(...priceFigures(answer));
    } catch (error) {
      if (mine !== this.asked) return;
      this.price.replaceChildren();
      setText(this.error, error.message);
    }
  }

  async ask(verb, request) {
    this.isAsking = true;
    setText(this.error, '');
    this.app.wantDraw();
    try {
      await this.app.connection.ask(this.app.settings.planner, verb, request);
      this.isMoved = false;
      this.plan = null; // take the next one as it is
    } catch (error) {
      setText(this.error, error.message);
    }
    this.isAsking = false;
    this.app.wantDraw();
  }
}

/** What a price answer says, each figure with how it compares with the present plan at today's costs. */
export function priceFigures({ plan, present }) {
  const then = plan.predicted;
  const now = present?.predicted;
  const sent = (predicted) => Object.values(predicted?.links ?? {}).reduce((sum, link) => sum + (link.nbytes ?? 0), 0);
  const rows = [
    ['One frame', seconds(then.seconds), difference(then.seconds, now?.seconds)],
    ['At most', then.period_seconds > 0 ? `${(1 / then.period_seconds).toFixed(1)} frames/s` : '', difference(1 / then.period_seconds, 1 / now?.period_seconds)],
    ['Sent a frame', bytes(sent(then)), now ? `now ${bytes(sent(now))}` : ''],
    ['Runs on', plan.stages.map((stage) => stage.node).join(', '), ''],
  ];
  return rows.map(([name, value, compared]) => el('div', {}, el('span', { class: 'note' }, name), el('b', {}, value), el('span', { class: 'note' }, compared)));
}
