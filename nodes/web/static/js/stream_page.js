// One stream: its figures, plan, stages, frames and history. Each part is a card that updates itself.

import { el, setAttribute, setHidden, setText } from './dom.js';
import { ChartCard } from './chart_card.js';
import { count, mood, rate, seconds, UNKNOWN, words } from './format.js';
import { FramesCard } from './frames_card.js';
import { GraphCard } from './graph_card.js';
import { HistoryCard } from './history_card.js';
import { PlanCard } from './plan_card.js';
import { RequestCard } from './request_card.js';
import { StagesCard } from './stages_card.js';
import { TilesCard } from './tiles_card.js';

class Figure {
  constructor(label) {
    this.value = el('div', { class: 'value' });
    this.extra = el('div', { class: 'extra' });
    this.node = el('div', { class: 'figure' }, el('div', { class: 'label' }, label), this.value, this.extra);
  }

  update(value, extra = '') {
    setText(this.value, value);
    setText(this.extra, extra);
  }
}

export class StreamPage {
  constructor(app, id) {
    this.app = app;
    this.id = id;
    this.state = el('span', { class: 'state' });
    this.model = el('span', { class: 'note' });
    this.figures = {
      rate: new Figure('Frames per second'), p50: new Figure('Latency p50'), p95: new Figure('Latency p95'),
      predicted: new Figure('Predicted'), flight: new Figure('In flight'), answered: new Figure('Answered'),
    };
    this.parts = [
      new PlanCard(app, id), new StagesCard(app), new ChartCard(app), new GraphCard(app), new TilesCard(app),
      new FramesCard(app, id), new RequestCard(app, id), new HistoryCard(app, id),
    ];
    const [plan, ...others] = this.parts;
    this.error = el('p', { class: 'error' });
    this.body = el('div', { class: 'stack' },
      el('div', { class: 'figures' }, Object.values(this.figures).map((figure) => figure.node)), this.error, plan.node,
      el('div', { class: 'columns' }, others.map((part) => part.node)));
    this.missing = el('p', { class: 'empty' }, 'No such stream. Its device may not have come up yet; this page fills when it does.');
    this.node = el('div', { class: 'stack' },
      el('div', { class: 'pagehead' }, el('a', { href: '#/' }, '← All streams'), el('h1', {}, id), this.state, this.model), this.missing, this.body);
    for (const part of this.parts) part.open?.();
  }

  learn(topic, payload, correlation) {
    for (const part of this.parts) part.learn?.(topic, payload, correlation);
  }

  close() {
    for (const part of this.parts) part.close?.();
  }

  update() {
    const { state } = this.app;
    const stream = state.streams.get(this.id);
    setHidden(this.missing, stream !== undefined);
    setHidden(this.body, stream === undefined);
    if (stream === undefined) return;
    const plans = state.planOf(stream);
    setAttribute(this.state, 'data-mood', mood(plans.state));
    setText(this.state, words(plans.state));
    const plan = plans.active ?? plans.coming;
    const graph = plan ? state.graphs.get(plan.digest) : undefined;
    setText(this.model, [state.modelOf(stream), graph && `${count(graph.blocks.length)} blocks`, plan && `epoch ${plan.epoch}`].filter(Boolean).join(', '));
    this.updateFigures(stream, plans, plan);
    for (const part of this.parts) part.update({ stream, ...plans, plan, graph });
  }

  updateFigures(stream, plans, plan) {
    const { rate: hz, p50, p95 } = stream.now ?? {};
    const telemetry = this.app.state.nodes.get(plans.device)?.telemetry ?? new Map();
    const counter = (name) => telemetry.get(`stream.${this.id}.${name}`) ?? (telemetry.size ? 0 : null);
    const { figures } = this;
    figures.rate.update(rate(hz), plan?.predicted.period ? `at most ${rate(1 / plan.predicted.period)}` : '');
    figures.p50.update(seconds(p50), 'of the newest 64 frames');
    figures.p95.update(seconds(p95));
    const { predicted } = plan ?? {};
    const isRanged = predicted && predicted.low !== null && predicted.high !== null;
    figures.predicted.update(plan ? seconds(predicted.seconds) : UNKNOWN, isRanged ? `${seconds(predicted.low)} to ${seconds(predicted.high)}` : plan ? `for ${plan.objective}` : '');
    figures.flight.update(count(counter('in_flight')), counter('backlog') ? `${count(counter('backlog'))} waiting` : '');
    const errors = counter('error_results_total');
    figures.answered.update(count(counter('results_total')), errors ? `${count(errors)} with an error` : 'none lost');
    setHidden(this.error, stream.lastError === null);
    if (stream.lastError) setText(this.error, `Frame ${stream.lastError.sequence} failed: ${stream.lastError.error}`);
  }
}
