// The newest frames with their answers, drawn on the picture where the stream shows previews; and one frame's waterfall.

import { answerWords, drawAnswer } from './answers.js';
import { object, text, whole } from './checked.js';
import { drawClassMap, readClassMap } from './class_map.js';
import { paintNode } from './colours.js';
import { card, el, KeyedList, setAttribute, setHidden, setText } from './dom.js';
import { ago, clock, count, seconds } from './format.js';
import { waterfall } from './waterfall.js';

const CANVAS = { width: 320, height: 240 };

/** A preview's message: msgpack with the frame's number, its size, and a small JPEG. */
export function readPreview(payload) {
  const value = object(globalThis.MessagePack.decode(payload), 'a preview');
  if (!(value.jpeg instanceof Uint8Array)) throw new TypeError('a preview without a picture');
  return { sequence: whole(value.sequence, 'sequence'), width: whole(value.width, 'width'), height: whole(value.height, 'height'), jpeg: value.jpeg };
}

class FrameTile {
  constructor(frame, onChoose) {
    this.canvas = el('canvas', { width: CANVAS.width, height: CANVAS.height, 'aria-hidden': 'true' });
    this.title = el('b');
    this.words = el('span', { class: 'sub' });
    this.time = el('span', { class: 'sub' });
    this.node = el('button', { type: 'button', class: 'frame', onclick: () => onChoose(this.frame) }, this.canvas, el('span', { class: 'words' }, this.title, this.words, this.time));
  }

  update({ frame, preview, map, isChosen }) {
    this.frame = frame;
    setAttribute(this.node, 'aria-pressed', String(isChosen));
    setText(this.title, `Frame ${count(frame.sequence)}`);
    setText(this.words, frame.ok ? answerWords(frame.raw) : frame.error);
    setText(this.time, seconds(frame.seconds));
    setHidden(this.canvas, preview === undefined);
    if (preview === undefined || (preview === this.drawn && map === this.drawnMap)) return;
    [this.drawn, this.drawnMap] = [preview, map];
    this.draw(frame, preview, map);
  }

  async draw(frame, preview, map) {
    try {
      const picture = await createImageBitmap(new Blob([preview.jpeg], { type: 'image/jpeg' }));
      const scale = Math.min(CANVAS.width / picture.width, CANVAS.height / picture.height);
      this.canvas.height = Math.max(1, Math.round(picture.height * scale));
      this.canvas.width = Math.max(1, Math.round(picture.width * scale));
      const context = this.canvas.getContext('2d');
      context.drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
      picture.close();
      const [x, y] = [this.canvas.width / preview.width, this.canvas.height / preview.height];
      if (map) await drawClassMap(context, map, frame.raw, x, y);
      drawAnswer(context, frame.raw, x, y);
    } catch {
      setHidden(this.canvas, true);
    }
  }
}

export class FramesCard {
  constructor(app, id) {
    const { node, note } = card('Newest frames');
    Object.assign(this, { app, id, node, note, chosen: null, isHeld: false });
    this.topic = `preview/${id}`;
    this.mapTopic = `output/${id}/map`;
    this.grid = el('div', { class: 'frames' });
    this.empty = el('p', { class: 'empty' }, 'No frame has been answered while this page was open.');
    this.hold = el('button', { type: 'button', class: 'small', 'aria-pressed': 'false', onclick: () => this.toggle() }, 'Hold');
    this.pictures = el('p', { class: 'note' });
    this.words = el('h2', { class: 'sub' });
    this.lanes = el('tbody');
    this.waterfall = el('div', { class: 'stack' }, this.words, el('table', { class: 'waterfall' }, this.lanes));
    node.append(this.empty, this.grid, el('div', { class: 'row' }, this.hold), this.pictures, this.waterfall);
    this.list = new KeyedList(this.grid, (item) => new FrameTile(item.frame, (frame) => this.choose(frame)));
  }

  open() {
    for (const topic of [this.topic, this.mapTopic]) this.app.connection.follow(topic);
  }

  close() {
    for (const topic of [this.topic, this.mapTopic]) this.app.connection.unfollow(topic);
  }

  learn(topic, payload, correlation) {
    if (topic !== this.topic && topic !== this.mapTopic) return;
    const stream = this.app.state.streams.get(this.id);
    try {
      if (topic === this.topic) stream?.learnPreview(readPreview(payload));
      else stream?.learnMap(readClassMap(payload, correlation));
    } catch (error) {
      this.app.state.note(topic, text(error.message, 200));
    }
  }

  toggle() {
    this.isHeld = !this.isHeld;
    this.hold.setAttribute('aria-pressed', String(this.isHeld));
    setText(this.hold, this.isHeld ? 'Go on' : 'Hold');
    this.app.wantDraw();
  }

  choose(frame) {
    this.chosen = this.chosen?.sequence === frame.sequence ? null : frame;
    this.app.wantDraw();
  }

  update({ stream }) {
    if (!this.isHeld || this.frames === undefined) this.frames = pick(stream);
    const { frames } = this;
    setHidden(this.empty, frames.length > 0);
    setHidden(this.waterfall, frames.length === 0);
    setHidden(this.hold, frames.length === 0);
    const latest = frames[0];
    const age = latest?.ts ? Math.max(0, Date.now() / 1000 - latest.ts) : null;
    setText(this.note, latest ? `the newest ${age === null ? '' : ago(age)}` : '');
    const shown = this.chosen ?? latest;
    this.list.update(frames.map((frame) => ({ frame, preview: stream.previews.get(frame.sequence), map: stream.maps.get(frame.sequence), isChosen: frame.sequence === shown?.sequence })), ({ frame }) => frame.sequence);
    setText(this.pictures, frames.length && stream.previews.size === 0 ? 'Pictures are shown where the stream has `preview: true` in the configuration.' : '');
    if (shown) this.show(shown);
  }

  show(frame) {
    if (frame === this.shownFrame) return;
    this.shownFrame = frame;
    setText(this.words, `Frame ${count(frame.sequence)}, ${seconds(frame.seconds)}, under epoch ${frame.epoch}${frame.attempt > 1 ? `, attempt ${frame.attempt}` : ''}${frame.ts ? `, at ${clock(frame.ts)}` : ''}`);
    this.lanes.replaceChildren(...waterfall(frame).map((lane) => {
      const bar = el('i', { class: lane.isWait ? 'waits' : '' });
      bar.style.left = `${lane.from * 100}%`;
      bar.style.width = `${Math.max(0, lane.to - lane.from) * 100}%`;
      const row = el('tr', {}, el('td', {}, lane.label), el('td', { class: 'num' }, seconds(lane.seconds)), el('td', { class: 'lane', 'aria-hidden': 'true' }, bar));
      paintNode(row, this.app.state, lane.node, lane.tier);
      return row;
    }));
  }
}

/** The newest answered frames; where there are pictures, those that have one. */
function pick(stream) {
  const newest = [...stream.shown].reverse();
  const pictured = newest.filter((frame) => stream.previews.has(frame.sequence));
  return (pictured.length >= 1 ? pictured : newest).slice(0, 6);
}
