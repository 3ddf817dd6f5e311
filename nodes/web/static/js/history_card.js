// Epochs with the planner's reasons, newest first. The broker keeps the newest plan only, so this browser keeps the rest.

import { card, el, KeyedList, setAttribute, setHidden, setText } from './dom.js';
import { clock, seconds, UNKNOWN } from './format.js';
import { pathOf } from './overview.js';

const KEPT = 100;

/** Epochs that this browser has seen, from earlier visits, too. */
class Remembered {
  constructor(pipeline, stream) {
    this.key = `trisect-history/${pipeline}/${stream}`;
    this.entries = new Map();
    try {
      for (const entry of JSON.parse(localStorage.getItem(this.key) ?? '[]')) this.entries.set(entry.epoch, entry);
    } catch {
      localStorage.removeItem(this.key);
    }
  }

  /** Take a plan in; returns whether anything is new. */
  add(plan) {
    const known = this.entries.get(plan.epoch);
    if (known?.reason === plan.reason && known.createdTs === plan.createdTs) return false;
    const { epoch, reason, createdTs, planner, objective } = plan;
    const stages = plan.stages.map(({ tier, node }) => ({ tier, node }));
    // a pipeline that was made again counts from 1
    if (Math.max(0, ...this.entries.keys()) > epoch && !known) this.entries.clear();
    this.entries.set(epoch, { epoch, reason, createdTs, planner, objective, stages, predicted: plan.predicted.seconds });
    while (this.entries.size > KEPT) this.entries.delete(Math.min(...this.entries.keys()));
    try {
      localStorage.setItem(this.key, JSON.stringify([...this.entries.values()]));
    } catch {
      // no room, or not allowed: it is remembered for as long as the page is open
    }
    return true;
  }
}

class Entry {
  constructor(app, entry) {
    this.title = el('b');
    this.mark = el('span', { class: 'note' });
    this.when = el('span', { class: 'when' });
    this.reason = el('p', { class: 'note' });
    this.path = el('div', { class: 'path' }, pathOf(entry, app.state));
    this.node = el('li', {}, el('div', { class: 'row' }, this.title, this.path, this.when, this.mark), this.reason);
  }

  update(entry) {
    setAttribute(this.node, 'class', entry.isActive ? 'active' : null);
    setText(this.title, `Epoch ${entry.epoch}`);
    setText(this.mark, entry.isActive ? 'active' : entry.isComing ? 'coming' : '');
    setText(this.when, `${entry.createdTs ? clock(entry.createdTs) : UNKNOWN}, ${entry.planner}, predicted ${seconds(entry.predicted)}`);
    setText(this.reason, entry.reason);
  }
}

export class HistoryCard {
  constructor(app, id) {
    const { node, note } = card('Epochs and why');
    this.node = node;
    this.note = note;
    this.remembered = new Remembered(app.settings.pipeline, id);
    this.empty = el('p', { class: 'empty' }, 'No plan has been seen yet.');
    const rows = el('ol', { class: 'history', tabindex: '0', 'aria-label': 'Epochs, newest first' });
    node.append(rows, this.empty);
    this.list = new KeyedList(rows, (entry) => new Entry(app, entry));
    this.shown = '';
  }

  update({ stream, active, coming }) {
    let isNew = false;
    for (const plan of stream.plans.values()) isNew = this.remembered.add(plan) || isNew;
    const shown = `${active?.epoch} ${coming?.epoch}`;
    if (!isNew && shown === this.shown) return;
    this.shown = shown;
    const entries = [...this.remembered.entries.values()].sort((a, b) => b.epoch - a.epoch);
    const missed = entries.length ? entries[0].epoch - entries[entries.length - 1].epoch + 1 - entries.length : 0;
    setText(this.note, missed ? `${missed} came while this page was closed` : '');
    setHidden(this.empty, entries.length > 0);
    this.list.update(entries.map((entry) => ({ ...entry, isActive: entry.epoch === active?.epoch, isComing: entry.epoch === coming?.epoch })), (entry) => `${entry.epoch}/${entry.createdTs}`);
  }
}
