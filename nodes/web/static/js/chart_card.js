// Latency and frames per second over the last ten minutes, or the last day.

import { card, el, setHidden, setText } from './dom.js';
import { rate, seconds } from './format.js';

let library = null;

/** uPlot, loaded when a chart is first shown. */
function loadLibrary() {
  library ??= import('/vendor/uPlot.esm.js').then((module) => {
    document.head.append(el('link', { rel: 'stylesheet', href: '/vendor/uPlot.min.css' }));
    return module.default;
  });
  return library;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export class ChartCard {
  constructor(app) {
    const { node, note } = card('Latency over time');
    Object.assign(this, { app, node, note, isLong: false, chart: null, drawnAt: 0 });
    this.place = el('div', { class: 'chart', role: 'img', 'aria-label': 'Latency p50 and p95, predicted, and frames per second over time' });
    this.empty = el('p', { class: 'empty' }, 'Fills while this page is open.');
    this.longer = el('button', { type: 'button', class: 'small', 'aria-pressed': 'false', onclick: () => this.switch() }, 'Last day');
    node.append(this.empty, this.place, el('div', { class: 'row' }, this.longer));
  }

  open() {
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.place);
    this.themes = new MutationObserver(() => this.rebuild());
    this.themes.observe(document.documentElement, { attributeFilter: ['data-theme'] });
    loadLibrary().then((uPlot) => {
      this.uPlot = uPlot;
      this.app.wantDraw();
    });
  }

  close() {
    this.observer.disconnect();
    this.themes.disconnect();
    this.chart?.destroy();
  }

  switch() {
    this.isLong = !this.isLong;
    this.longer.setAttribute('aria-pressed', String(this.isLong));
    setText(this.longer, this.isLong ? 'Last ten minutes' : 'Last day');
    this.drawnAt = 0;
    this.app.wantDraw();
  }

  rebuild() {
    this.chart?.destroy();
    this.chart = null;
    this.drawnAt = 0;
    this.app.wantDraw();
  }

  resize() {
    if (this.chart && this.place.clientWidth) this.chart.setSize(this.size());
  }

  size() {
    return { width: this.place.clientWidth, height: this.place.clientHeight - 34 };
  }

  update({ stream }) {
    const [times, p50, p95, rates, predicted] = stream.timeline.columns(this.isLong);
    const isEmpty = times.length < 2;
    setHidden(this.empty, !isEmpty);
    setHidden(this.place, isEmpty);
    setText(this.note, this.isLong ? 'medians of a minute each, of the last day' : 'once a second, of the last ten minutes');
    const now = performance.now();
    if (isEmpty || !this.uPlot || now - this.drawnAt < 950 || !this.place.clientWidth) return;
    this.drawnAt = now;
    const data = [times, p50, p95, predicted, rates];
    if (this.chart) this.chart.setData(data);
    else this.chart = this.make(data);
  }

  make(data) {
    const axis = { stroke: colour('--soft'), grid: { stroke: colour('--line-soft'), width: 1 }, ticks: { stroke: colour('--line'), width: 1 }, font: '12px system-ui' };
    const line = (label, name, options = {}) => ({ label, stroke: colour(name), width: 1.75, points: { show: false }, spanGaps: false, ...options });
    const time = (_, value) => seconds(value);
    const options = {
      ...this.size(),
      cursor: { drag: { x: false, y: false } },
      scales: { s: { range: (_, low, high) => [0, (high || 0.001) * 1.1] }, hz: { range: (_, low, high) => [0, Math.max(high ?? 1, 1) * 1.1] } },
      axes: [axis, { ...axis, scale: 's', size: 68, values: (_, values) => values.map(seconds) }, { ...axis, scale: 'hz', side: 1, size: 56, grid: { show: false }, values: (_, values) => values.map((value) => `${rate(value)}/s`) }],
      series: [
        { label: 'time', value: (_, value) => (value === null || value === undefined ? '–' : new Date(value * 1e3).toLocaleTimeString()) },
        line('p50', '--accent', { scale: 's', value: time }), line('p95', '--edge', { scale: 's', value: time }),
        line('predicted', '--soft', { scale: 's', dash: [4, 4], value: time }),
        line('frames/s', '--device', { scale: 'hz', width: 1.25, value: (_, value) => rate(value) }),
      ],
    };
    return new this.uPlot(options, data, this.place);
  }
}
