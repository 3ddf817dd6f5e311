// The first view: all streams, and all nodes by tier.

import { paintNode } from './colours.js';
import { card, el, KeyedList, setAttribute, setText, svg } from './dom.js';
import { ago, bytes, count, mood, rate, seconds, secondsRange, share, UNKNOWN, words } from './format.js';

const SPARK_POINTS = 60;

function cell(label, kind = '') {
  return el('td', { 'data-label': label, class: kind });
}

function stateMark() {
  return el('span', { class: 'state' });
}

function setState(mark, state) {
  setAttribute(mark, 'data-mood', mood(state));
  setText(mark, words(state));
}

function headings(...names) {
  return el('thead', {}, el('tr', {}, names.map(([name, kind]) => el('th', { scope: 'col', class: kind ?? '' }, name))));
}

/** The nodes of a plan, in the order that a frame passes them. */
export function pathOf(plan, state) {
  const parts = plan.stages.map((stage) => {
    const chip = el('span', { class: 'chip' }, stage.node);
    paintNode(chip, state, stage.node, stage.tier);
    return chip;
  });
  return parts.flatMap((part, i) => (i ? [el('span', { class: 'arrow', 'aria-label': 'then' }, '→'), part] : [part]));
}

class StreamRow {
  constructor(app, stream) {
    this.app = app;
    this.state = stateMark();
    this.parts = {
      path: el('td', { class: 'wide', 'data-label': 'Path' }), rate: cell('Frames/s', 'num'), p50: cell('p50', 'num'), p95: cell('p95', 'num'),
      predicted: cell('Predicted', 'num'), trend: el('td', { class: 'wide' }),
    };
    this.path = el('div', { class: 'path' });
    this.parts.path.append(this.path);
    this.line = svg('polyline');
    this.parts.trend.append(svg('svg', { class: 'spark', viewBox: '0 0 100 20', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, this.line));
    this.model = el('span', { class: 'sub' });
    const link = el('a', { href: `#/stream/${encodeURIComponent(stream.id)}` }, stream.id);
    this.node = el('tr', {}, el('td', { class: 'name' }, link, this.model), el('td', { 'data-label': 'State' }, this.state), Object.values(this.parts));
    this.shownPlan = undefined;
  }

  update(stream) {
    const { state } = this.app;
    const { active, coming, state: life } = state.planOf(stream);
    const plan = active ?? coming;
    setState(this.state, life);
    setText(this.model, state.modelOf(stream));
    if (plan !== this.shownPlan || state.places !== this.shownPlaces) {
      [this.shownPlan, this.shownPlaces] = [plan, state.places];
      this.path.replaceChildren(...(plan ? pathOf(plan, state) : [el('span', { class: 'note' }, 'no plan yet')]));
    }
    setText(this.parts.rate, rate(stream.now?.rate));
    setText(this.parts.p50, seconds(stream.now?.p50));
    setText(this.parts.p95, seconds(stream.now?.p95));
    setText(this.parts.predicted, plan ? secondsRange(plan.predicted.seconds, plan.predicted.low, plan.predicted.high) : UNKNOWN);
    const values = stream.timeline.recent('p50', SPARK_POINTS).map((value) => (Number.isNaN(value) ? null : value));
    setAttribute(this.line, 'points', sparkPoints(values));
  }
}

function sparkPoints(values) {
  const most = Math.max(...values.filter((value) => value !== null), 1e-9);
  const step = 100 / Math.max(values.length - 1, 1);
  return values.flatMap((value, i) => (value === null ? [] : [`${(i * step).toFixed(1)},${(19 - (value / most) * 17).toFixed(1)}`])).join(' ');
}

class NodeRow {
  constructor(app, node) {
    this.app = app;
    this.state = stateMark();
    this.sub = el('span', { class: 'sub' });
    this.name = el('td', { class: 'name' }, el('span', { class: 'chip' }, node.id), this.sub);
    this.parts = {
      version: cell('Version'), engine: cell('Engine'), processor: cell('Processor', 'num'), memory: cell('Memory', 'num'), link: cell('Link up / down', 'num'),
      echo: cell('Round trip', 'num'), report: cell('Report', 'num'),
    };
    this.drain = el('button', { type: 'button', class: 'small', onclick: () => this.onDrain(node.id) });
    this.answer = el('span', { class: 'sub error', role: 'status' });
    this.node = el('tr', {}, this.name, el('td', { 'data-label': 'State' }, this.state), Object.values(this.parts), el('td', { class: 'num wide' }, this.drain, this.answer));
  }

  update(node) {
    const now = this.app.now();
    const { state } = this.app;
    const life = state.stateOf(node.id, now);
    paintNode(this.node, state, node.id, node.tier);
    setState(this.state, life);
    const { info, link, telemetry } = node;
    setText(this.sub, [node.tier, info?.role, node.state?.host].filter(Boolean).join(', '));
    setText(this.parts.version, info?.version ?? (node.tier === 'planner' ? '' : UNKNOWN));
    setText(this.parts.engine, info ? `${info.engine} ×${info.threads}` : '');
    setText(this.parts.processor, share(telemetry.get('processor_share')));
    setText(this.parts.memory, bytes(telemetry.get('resident_bytes')));
    const measured = (name) => telemetry.get(`link.${name}`) ?? link?.get(name);
    setText(this.parts.link, link ? `${bytes(measured('up_bytes_per_s'))}/s / ${bytes(measured('down_bytes_per_s'))}/s` : '');
    setText(this.parts.echo, link ? seconds(measured('round_trip_s')) : '');
    setText(this.parts.report, node.telemetryAt === null ? UNKNOWN : ago(now - node.telemetryAt));
    this.updateDrain(node, life);
  }

  updateDrain(node, life) {
    const mayDrain = ['edge', 'cloud'].includes(node.tier) && ['ready', 'draining'].includes(life);
    this.drain.hidden = !mayDrain;
    this.isDraining = life === 'draining';
    setText(this.drain, this.isDraining ? 'Take back' : 'Drain');
    const why = this.app.settings.why_read_only;
    this.drain.disabled = Boolean(why) || this.isAsking === true;
    this.drain.title = why || (this.isDraining ? 'Let plans use it again' : 'Leave it out of plans without losing a frame, so that it may stop');
  }

  async onDrain(id) {
    this.isAsking = true;
    setText(this.answer, '');
    try {
      await this.app.connection.ask(id, 'drain', this.isDraining ? { undo: true } : {});
    } catch (error) {
      setText(this.answer, error.message);
    }
    this.isAsking = false;
    this.app.wantDraw();
  }
}

export class Overview {
  constructor(app) {
    this.app = app;
    this.streams = card('Streams');
    this.nodes = card('Nodes');
    const streamRows = el('tbody');
    const nodeRows = el('tbody');
    this.noStreams = el('p', { class: 'empty' }, 'No stream yet. A stream begins with a device node that has it in its configuration.');
    this.streams.node.append(
      el('table', { class: 'cards' }, headings(['Stream'], ['State'], ['Path'], ['Frames/s', 'num'], ['p50', 'num'], ['p95', 'num'], ['Predicted', 'num'], ['Last minute']), streamRows),
      this.noStreams,
    );
    const names = [['Node'], ['State'], ['Version'], ['Engine'], ['Processor', 'num'], ['Memory', 'num'], ['Link up / down', 'num'], ['Round trip', 'num'], ['Report', 'num'], ['']];
    this.nodes.node.append(el('table', { class: 'cards' }, headings(...names), nodeRows));
    this.readOnly = el('p', { class: 'note', id: 'read-only' }, app.settings.why_read_only && `You can look, but not change anything: ${app.settings.why_read_only}.`);
    this.readOnly.hidden = !app.settings.why_read_only;
    this.node = el('div', { class: 'stack' }, this.readOnly, this.streams.node, this.nodes.node);
    this.streamList = new KeyedList(streamRows, (stream) => new StreamRow(app, stream));
    this.nodeList = new KeyedList(nodeRows, (node) => new NodeRow(app, node));
  }

  update() {
    const { state } = this.app;
    const streams = state.sortedStreams();
    const nodes = state.sortedNodes();
    this.streamList.update(streams, (stream) => stream.id);
    this.nodeList.update(nodes, (node) => node.id);
    this.noStreams.hidden = streams.length > 0;
    const total = streams.reduce((sum, stream) => sum + (stream.now?.rate ?? 0), 0);
    setText(this.streams.note, streams.length > 1 ? `${count(streams.length)} streams, ${rate(total)} frames/s` : '');
    const ready = nodes.filter((node) => state.stateOf(node.id, this.app.now()) === 'ready').length;
    setText(this.nodes.note, `${ready} of ${nodes.length} ready`);
  }
}
