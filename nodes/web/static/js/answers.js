// A frame's answer in words, and drawn on its picture: classes, boxes, points.

import { list, number, text } from './checked.js';
import { share } from './format.js';

const MOST_BOXES = 300;
const HUES = 12;
const [SATURATION, LIGHTNESS] = [0.95, 0.72];

/** What the result says, in a few words. */
export function answerWords(raw) {
  if (!raw) return '';
  const boxes = boxesOf(raw);
  if (raw.task === 'detect') return boxes.length ? counted(boxes.map((box) => box.label)) : 'nothing found';
  if (Array.isArray(raw.shares)) return list(raw.shares, 4).map((one) => `${text(one?.label, 60)} ${share(number(one?.share))}`).join(', ');
  if (Array.isArray(raw.keypoints)) return `${raw.keypoints.length} points`;
  if (Array.isArray(raw.top) && raw.top.length) return list(raw.top, 3).map((one) => `${text(one?.label, 60)} ${share(number(one?.score))}`).join(', ');
  if (raw.values && typeof raw.values === 'object') return Object.entries(raw.values).slice(0, 4).map(([name, value]) => `${text(name, 40)} ${number(value)?.toPrecision(4) ?? ''}`).join(', ');
  return text(raw.task, 40);
}

function counted(labels) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].slice(0, 4).map(([label, number_]) => (number_ > 1 ? `${number_} × ${label}` : label)).join(', ');
}

/** Boxes with corners in the frame's pixels, label and score; what is no box is left out. */
export function boxesOf(raw) {
  const classes = list(raw.classes, MOST_BOXES);
  const scores = list(raw.scores, MOST_BOXES);
  const labels = list(raw.labels, MOST_BOXES);
  return list(raw.boxes, MOST_BOXES).flatMap((one, i) => {
    const corners = (Array.isArray(one) ? one : list(one?.box, 4)).slice(0, 4).map(number);
    if (corners.length !== 4 || corners.includes(null)) return [];
    const name = labels[i] ?? one?.label ?? classes[i] ?? one?.class ?? '';
    return [{ corners, label: text(String(name), 60), score: number(scores[i] ?? one?.score) }];
  });
}

/** Draw the answer over a picture that is already there; `x` and `y` scale the frame's pixels to the canvas's. */
export function drawAnswer(context, raw, x, y) {
  if (!raw) return;
  context.font = '600 12px system-ui, sans-serif';
  context.lineWidth = 2;
  context.textBaseline = 'top';
  for (const { corners: [left, top, right, bottom], label, score } of boxesOf(raw)) {
    const colour = colourOf(label);
    context.strokeStyle = colour;
    context.strokeRect(left * x, top * y, (right - left) * x, (bottom - top) * y);
    caption(context, `${label}${score === null ? '' : ` ${share(score)}`}`, left * x, Math.max(0, top * y - 16), colour);
  }
  for (const point of list(raw.keypoints, MOST_BOXES)) {
    const [left, top] = [number(point?.x), number(point?.y)];
    if (left === null || top === null) continue;
    context.fillStyle = colourOf(text(point.label, 60));
    context.beginPath();
    context.arc(left * x, top * y, 3.5, 0, 2 * Math.PI);
    context.fill();
  }
  const best = list(raw.top, 1)[0];
  if (best && !raw.boxes) caption(context, `${text(best.label, 40)} ${share(number(best.score))}`, 6, context.canvas.height - 22, '#ffffff');
}

function caption(context, words, left, top, colour) {
  const { width } = context.measureText(words);
  context.fillStyle = 'rgb(0 0 0 / 70%)';
  context.fillRect(left, top, width + 8, 16);
  context.fillStyle = colour;
  context.fillText(words, left + 4, top + 2);
}

function colourOf(label) {
  return `rgb(${labelRgb(label).join(' ')})`;
}

/** A label's colour as red, green and blue from 0 to 255; equal labels have equal colours. */
export function labelRgb(label) {
  const hue = (hash(label) % HUES) * (360 / HUES);
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (LIGHTNESS - SATURATION * Math.min(LIGHTNESS, 1 - LIGHTNESS) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

function hash(label) {
  let value = 7;
  for (const char of label) value = (value * 31 + char.codePointAt(0)) % 65_521;
  return value;
}
