// A map of classes over a frame's picture: each class in its label's colour, the background left clear.

import { list, number, text } from './checked.js';
import { labelRgb } from './answers.js';

const ALPHA = 120;
const MOST_BYTES = 2 ** 21;
const BACKGROUND = /^(background|0)?$/i;
const sequenceOf = (bytes) => Number(new TextDecoder().decode(bytes));

/** A message on `output/<stream>/map`: a grey PNG whose pixels are classes; its correlation data is the frame's number. */
export function readClassMap(payload, correlation) {
  const sequence = correlation ? sequenceOf(correlation) : NaN;
  if (!Number.isSafeInteger(sequence)) throw new TypeError('a map of classes without its frame’s number');
  if (payload.length > MOST_BYTES) throw new TypeError(`a map of classes of ${payload.length} bytes; at most ${MOST_BYTES} are shown`);
  return { sequence, png: payload.slice() };
}

/** Draw it where it lies in the frame; `x` and `y` scale the frame's pixels to the canvas's. */
export async function drawClassMap(context, map, raw, x, y) {
  const options = { colorSpaceConversion: 'none', premultiplyAlpha: 'none' };
  const grey = await createImageBitmap(new Blob([map.png], { type: 'image/png' }), options);
  const layer = new OffscreenCanvas(grey.width, grey.height);
  const pen = layer.getContext('2d', { willReadFrequently: true });
  pen.drawImage(grey, 0, 0);
  grey.close();
  const pixels = pen.getImageData(0, 0, layer.width, layer.height);
  paint(pixels.data, coloursOf(raw));
  pen.putImageData(pixels, 0, 0);
  const [left, top, right, bottom] = placeOf(raw, context.canvas.width / x, context.canvas.height / y);
  context.imageSmoothingEnabled = false;
  context.drawImage(layer, left * x, top * y, (right - left) * x, (bottom - top) * y);
}

/** From grey levels, which are classes, to their colours, in place. */
function paint(data, colours) {
  for (let i = 0; i < data.length; i += 4) {
    const colour = colours.get(data[i]);
    data[i + 3] = colour ? ALPHA : 0;
    if (colour) [data[i], data[i + 1], data[i + 2]] = colour;
  }
}

function coloursOf(raw) {
  const found = new Map();
  for (const one of list(raw?.shares, 256)) {
    const label = text(one?.label, 60);
    const index = number(one?.index);
    if (index !== null && !(index === 0 && BACKGROUND.test(label))) found.set(index, labelRgb(label));
  }
  return found;
}

function placeOf(raw, width, height) {
  const place = list(raw?.map_box, 4).map(number);
  return place.length === 4 && !place.includes(null) ? place : [0, 0, width, height];
}
