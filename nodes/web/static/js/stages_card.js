// Predicted beside measured, stage by stage, in the order that a frame passes them.

import { paintNode } from './colours.js';
import { card, el, KeyedList, setHidden, setText } from './dom.js';
import { bytes, difference, seconds, secondsRange } from './format.js';

const LINK_NAMES = { device_edge: 'device → edge', edge_cloud: 'edge → cloud', device_cloud: 'device → cloud', return: 'back to the device' };

class StageRow {
  constructor(app) {
    this.app = app;
    this.name = el('td', { class: 'name' });
    this.sub = el('span', { class: 'sub' });
    this.label = el('span');
    this.name.append(this.label, this.sub);
    this.bars = [el('i'), el('i')];
    this.meters = this.bars.map((bar, i) => el('div', { class: `meter${i ? '' : ' outline'}${i ? ' thin' : ''}` }, bar));
    this.predicted = el('td', { class: 'num', 'data-label': 'Predicted' });
    this.measured = el('td', { class: 'num', 'data-label': 'Measured' });
    this.off = el('td', { class: 'num', 'data-label': 'Differs by' });
    this.node = el('tr', {}, this.name, this.predicted, this.measured, this.off, el('td', { class: 'wide', 'aria-hidden': 'true' }, this.meters));
  }

  update(row) {
    paintNode(this.node, this.app.state, row.node ?? '', row.tier);
    setText(this.label, row.label);
    setText(this.sub, row.sub);
    setText(this.predicted, row.range);
    setText(this.measured, seconds(row.measured));
    setText(this.off, difference(row.measured, row.predicted));
    [row.predicted, row.measured].forEach((value, i) => {
      this.bars[i].style.width = `${Math.min(100, (100 * Math.max(0, value ?? 0)) / row.scale)}%`;
    });
  }
}

export class StagesCard {
  constructor(app) {
    const { node, note } = card('Predicted and measured');
    this.node = node;
    this.note = note;
    const rows = el('tbody');
    const names = [['Part', ''], ['Predicted', 'num'], ['Measured p50', 'num'], ['Differs by', 'num'], ['', '']];
    this.table = el('table', { class: 'cards' }, el('thead', {}, el('tr', {}, names.map(([name, kind]) => el('th', { scope: 'col', class: kind }, name)))), rows);
    this.empty = el('p', { class: 'empty' }, 'Shown when the stream has a plan.');
    node.append(this.table, this.empty);
    this.list = new KeyedList(rows, () => new StageRow(app));
  }

  update({ plan, active, stream }) {
    setHidden(this.table, !plan);
    setHidden(this.empty, Boolean(plan));
    if (!plan) return;
    const measured = stream.now?.measured && plan === active ? stream.now.measured : stream.measured(plan.epoch);
    setText(this.note, measured.frames ? `medians of ${measured.frames} frames under epoch ${plan.epoch}` : 'no frame has been answered under this plan while this page was open');
    const rows = stageRows(plan, measured);
    const scale = Math.max(...rows.filter((row) => !row.isTotal).flatMap((row) => [row.predicted ?? 0, row.measured ?? 0]), 1e-6);
    this.list.update(rows.map((row) => ({ ...row, scale: row.isTotal ? Math.max(row.predicted ?? 0, row.measured ?? 0, 1e-6) : scale })), (row) => row.key);
  }
}

/** Rows of the table: stages with the links between them, the way back, and the whole. */
export function stageRows(plan, measured) {
  const { predicted } = plan;
  const rangeOf = (key, value) => secondsRange(value, predicted.ranges[key]?.low, predicted.ranges[key]?.high);
  const rows = [];
  plan.stages.forEach((stage, i) => {
    const value = predicted.stages.get(stage.tier) ?? null;
    const took = measured.stages.get(stage.tier);
    rows.push({
      key: stage.tier, node: stage.node, tier: stage.tier, label: stage.node, sub: `${stage.first} to ${stage.last}${took?.queue > 1e-3 ? `; waited ${seconds(took.queue)}` : ''}`,
      predicted: value, range: rangeOf(stage.tier, value), measured: took?.compute ?? null,
    });
    const next = plan.stages[i + 1];
    if (!next) return;
    const key = `${stage.tier}_${next.tier}`;
    const costs = linksBetween(predicted, stage.tier, next.tier);
    const seconds_ = costs.length ? costs.reduce((sum, cost) => sum + (cost.get('seconds') ?? 0), 0) : null;
    rows.push({
      key, tier: '', label: LINK_NAMES[key] ?? key, sub: costs.length ? `${bytes(costs[0].get('nbytes'))} a frame, and ${answer(plan.results, costs[0])}` : '',
      predicted: seconds_, range: rangeOf(key, seconds_), measured: withReturn(measured, key, plan.stages.length, i),
    });
  });
  rows.push({ key: 'overhead', node: plan.stages[0]?.node, tier: 'device', label: 'reading and answering', sub: 'on the device', predicted: predicted.frameOverhead, range: rangeOf('frame_overhead', predicted.frameOverhead), measured: overhead(measured) });
  rows.push({ key: 'whole', tier: 'planner', label: 'whole frame', sub: '', predicted: predicted.seconds, range: secondsRange(predicted.seconds, predicted.low, predicted.high), measured: measured.p50, isTotal: true });
  return rows;
}

/** The answer's way back; with its bytes and codecs where any output is coded. */
function answer(results, cost) {
  const codecs = [...new Set(results.map((result) => result.codec).filter((codec) => codec && codec !== 'none'))];
  return codecs.length ? `${bytes(cost.get('result_nbytes'))} back as ${codecs.join(', ')}` : 'the answer\'s way back';
}

function linksBetween(predicted, from, to) {
  const names = { device_edge: ['device_edge'], edge_cloud: ['edge_cloud'], device_cloud: ['device_edge', 'edge_cloud'] }[`${from}_${to}`] ?? [];
  return names.map((name) => predicted.links.get(name)).filter(Boolean);
}

/** A link's prediction has the answer's way back in it; with one link, so has what is measured. */
function withReturn(measured, key, stages, index) {
  const there = measured.links.get(key);
  if (there === undefined) return null;
  return stages === 2 && index === 0 ? there + (measured.links.get('return') ?? 0) : there;
}

function overhead(measured) {
  if (measured.p50 === null) return null;
  const stages = [...measured.stages.values()].reduce((sum, one) => sum + one.compute + one.queue, 0);
  const links = [...measured.links.values()].reduce((sum, one) => sum + one, 0);
  return Math.max(0, measured.p50 - stages - links);
}
