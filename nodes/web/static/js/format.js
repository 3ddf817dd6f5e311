// Numbers and words as people read them.

export const UNKNOWN = '–';
const TIERS = ['device', 'edge', 'cloud', 'planner'];

const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);

/** Seconds as milliseconds or, from one second on, as seconds. */
export function seconds(value) {
  if (!isNumber(value)) return UNKNOWN;
  if (Math.abs(value) >= 0.9995) return `${value.toFixed(Math.abs(value) >= 10 ? 1 : 2)} s`;
  const ms = value * 1e3;
  return `${Math.abs(ms) >= 100 ? ms.toFixed(0) : ms.toFixed(1)} ms`;
}

/** A range of seconds, where the planner says how sure it is. */
export function secondsRange(value, low, high) {
  const text = seconds(value);
  return isNumber(low) && isNumber(high) ? `${text} (${seconds(low)} to ${seconds(high)})` : text;
}

export function bytes(value) {
  if (!isNumber(value)) return UNKNOWN;
  for (const [factor, unit] of [[1e9, 'GB'], [1e6, 'MB'], [1e3, 'kB']]) {
    if (Math.abs(value) >= factor) return `${(value / factor).toFixed(value >= 100 * factor ? 0 : 1)} ${unit}`;
  }
  return `${Math.round(value)} B`;
}

export function rate(value) {
  return isNumber(value) ? value.toFixed(value >= 100 ? 0 : 1) : UNKNOWN;
}

export function share(value) {
  return isNumber(value) ? `${Math.round(value * 100)} %` : UNKNOWN;
}

/** By how much a value differs from another one, as a signed share. */
export function difference(value, from) {
  if (!isNumber(value) || !isNumber(from) || from === 0) return '';
  const percent = Math.round((value / from - 1) * 100);
  return percent === 0 ? 'as now' : `${percent > 0 ? '+' : '−'}${Math.abs(percent)} %`;
}

/** How long ago, from seconds. */
export function ago(value) {
  if (!isNumber(value)) return UNKNOWN;
  if (value < 2) return 'now';
  if (value < 120) return `${Math.round(value)} s ago`;
  if (value < 7200) return `${Math.round(value / 60)} min ago`;
  return `${Math.round(value / 3600)} h ago`;
}

export function clock(ts) {
  return isNumber(ts) ? new Date(ts * 1000).toLocaleTimeString() : UNKNOWN;
}

export function count(value) {
  return isNumber(value) ? value.toLocaleString('en') : UNKNOWN;
}

export function words(state) {
  return String(state).replaceAll('_', ' ');
}

const MOODS = {
  ready: 'good', running: 'good', preparing: 'warn', init: 'warn', draining: 'warn', no_plan: 'warn',
  stopped: 'off', absent: 'off', refused: 'bad', interrupted: 'bad', lost: 'bad', silent: 'bad',
};

export function mood(state) {
  return MOODS[state] ?? 'off';
}

export function tierOrder(tier) {
  const place = TIERS.indexOf(tier);
  return place < 0 ? TIERS.length : place;
}

/** Which of our colours a tier has; an unknown one is grey. */
export function tierName(tier) {
  return TIERS.includes(tier) ? tier : '';
}
