// The page: learns its settings, connects, and draws what is shown, at most once per frame of the screen.

import { Connection } from './connection.js';
import { el, setHidden, setText } from './dom.js';
import { Overview } from './overview.js';
import { PipelineState } from './state.js';
import { StreamPage } from './stream_page.js';

const DRAW_MS = 250;
const SAMPLE_MS = 1000;
const THEME = 'trisect-theme';
const byId = (id) => document.getElementById(id);
const clockS = () => performance.now() / 1000;

class App {
  constructor(settings) {
    this.settings = settings;
    this.state = new PipelineState(settings);
    this.connection = new Connection(settings, {
      onMessage: (topic, payload, correlation) => this.learn(topic, payload, correlation),
      onStatus: (status) => this.status(status),
    });
    this.page = null;
    this.isDrawing = false;
    this.drawnAt = -Infinity;
    setText(byId('pipeline'), settings.pipeline);
    document.title = `${settings.pipeline} · trisect`;
    const { member } = settings;
    setText(byId('login'), member ? `${member.name} (${member.roles.join(', ')})` : '');
    window.addEventListener('hashchange', () => this.route());
  }

  start() {
    this.connection.start();
    this.route();
    setInterval(() => this.sample(), SAMPLE_MS);
  }

  now() {
    return clockS();
  }

  learn(topic, payload, correlation) {
    this.state.learn(topic, payload, clockS());
    this.page?.learn?.(topic, payload, correlation);
    this.wantDraw();
  }

  status({ state, why }) {
    const shown = byId('connection');
    shown.dataset.state = state;
    setText(shown, state === 'up' ? 'live' : 'reconnecting');
    shown.title = `broker ${this.settings.broker}`;
    if (state === 'up') this.state.since ??= clockS();
    this.isUp = state === 'up';
    this.why = why;
    if (!this.isUp) this.findOut();
    this.wantDraw();
  }

  /** Why there is no connection: from the relay's last word, or from whether the page's server still answers. */
  async findOut() {
    if (this.why) return;
    try {
      const answer = await fetch('/settings.json', { cache: 'no-store' });
      this.why = answer.ok ? `the broker at ${this.settings.broker} does not answer` : (await answer.json()).error;
    } catch {
      this.why = '`trisect web` does not answer; is it running?';
    }
    this.wantDraw();
  }

  route() {
    const [, kind, name] = location.hash.split('/');
    this.page?.close?.();
    this.page = kind === 'stream' && name ? new StreamPage(this, safeDecode(name)) : new Overview(this);
    byId('main').replaceChildren(this.page.node);
    this.draw();
    window.scrollTo(0, 0);
  }

  /** Keep one row a second of what charts show. */
  sample() {
    const now = clockS();
    for (const stream of this.state.streams.values()) {
      const { active } = this.state.planOf(stream);
      const measured = active ? stream.measured(active.epoch) : null;
      const rate = this.state.since === null ? null : stream.rate(now, this.state.since);
      stream.now = { rate, p50: measured?.p50 ?? null, p95: measured?.p95 ?? null, measured };
      const isMeasured = rate > 0;
      stream.timeline.push(Date.now() / 1000, {
        p50: isMeasured ? (measured?.p50 ?? undefined) : undefined, p95: isMeasured ? (measured?.p95 ?? undefined) : undefined,
        rate: rate ?? undefined, predicted: active?.predicted.seconds ?? undefined,
      });
    }
    this.wantDraw();
  }

  wantDraw() {
    if (this.isDrawing) return;
    this.isDrawing = true;
    const wait = Math.max(0, this.drawnAt + DRAW_MS - performance.now());
    setTimeout(() => requestAnimationFrame(() => this.draw()), wait);
  }

  draw() {
    this.isDrawing = false;
    this.drawnAt = performance.now();
    this.banner();
    this.page.update();
  }

  banner() {
    const banner = byId('banner');
    const lines = [];
    if (this.isUp === false) lines.push(`Not connected: ${this.why || 'the connection ended'}. Trying again; what is shown is as it was last.`);
    else if (this.isUp) lines.push(...this.state.problems(clockS()));
    const { total, last } = this.state.unreadable;
    if (total) lines.push(`${total} unreadable message${total > 1 ? 's' : ''}; the last on ${last}`);
    banner.classList.toggle('mild', this.isUp !== false);
    const more = lines.length > 4 ? [`and ${lines.length - 4} more`] : [];
    setText(banner, [...lines.slice(0, 4), ...more].join(' · '));
    setHidden(banner, lines.length === 0);
  }
}

function safeDecode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function theme() {
  const wanted = localStorage.getItem(THEME) ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  document.documentElement.dataset.theme = wanted;
  byId('theme').addEventListener('click', () => {
    const other = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    document.documentElement.dataset.theme = other;
    localStorage.setItem(THEME, other);
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', (event) => {
    if (localStorage.getItem(THEME) === null) document.documentElement.dataset.theme = event.matches ? 'dark' : 'light';
  });
}

async function begin() {
  theme();
  const answer = await fetch('/settings.json', { cache: 'no-store' });
  const settings = await answer.json();
  if (!answer.ok) throw new Error(settings.error);
  const app = new App(settings);
  window.trisect = app; // for tests, and for whoever looks into it with the browser's tools
  app.start();
}

begin().catch((error) => {
  const shown = byId('connection');
  shown.dataset.state = 'down';
  setText(shown, 'closed');
  byId('main').replaceChildren(el('div', { class: 'empty', id: 'refused' }, el('h1', {}, 'This page cannot be shown'), el('p', {}, error.message)));
});
