// What comes over the network, held against what it may be, once, where it enters. What is wrong throws, and is counted.

export class Unreadable extends Error {}

export function parseObject(payload) {
  let value;
  try {
    value = JSON.parse(new TextDecoder().decode(payload));
  } catch {
    throw new Unreadable('no JSON');
  }
  return object(value, 'a message');
}

export function object(value, what) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Unreadable(`${what}: no object`);
  return value;
}

export function text(value, most = 500) {
  if (typeof value !== 'string') return '';
  return value.length <= most ? value : `${value.slice(0, most - 1)}…`;
}

export function number(value) {
  return typeof value === 'number' && Number.isFinite(value) && Math.abs(value) <= 1e18 ? value : null;
}

export function whole(value, what) {
  if (!Number.isSafeInteger(value) || value < 0) throw new Unreadable(`${what}: no whole number of at least 0`);
  return value;
}

export function list(value, most = 5000) {
  return Array.isArray(value) ? value.slice(0, most) : [];
}

/** An object's numbers by name; everything else in it is left out. */
export function numbers(value, most = 10_000) {
  const found = new Map();
  if (typeof value !== 'object' || value === null) return found;
  for (const [name, one] of Object.entries(value)) {
    if (found.size >= most) break;
    if (number(one) !== null) found.set(name, one);
  }
  return found;
}
