// Numbers over time in memory of a fixed size, so that a tab that stays open for days stays as it was.

/** The newest values, at most `size` of them. */
export class Ring {
  constructor(size) {
    this.values = new Float64Array(size);
    this.length = 0;
    this.next = 0;
  }

  push(value) {
    this.values[this.next] = value;
    this.next = (this.next + 1) % this.values.length;
    this.length = Math.min(this.length + 1, this.values.length);
  }

  clear() {
    this.length = 0;
    this.next = 0;
  }

  /** From the oldest to the newest. */
  toArray() {
    const start = (this.next - this.length + this.values.length) % this.values.length;
    return Array.from({ length: this.length }, (_, i) => this.values[(start + i) % this.values.length]);
  }
}

/** The value below which this share of the values lies; null without any. */
export function percentile(values, portion) {
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  const place = (sorted.length - 1) * portion;
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

export const median = (values) => percentile(values, 0.5);

/** One row of numbers a second for ten minutes, and one a minute for a day. NaN where nothing was measured. */
export class Timeline {
  constructor(names) {
    this.names = names;
    this.fine = ['at', ...names].map(() => new Ring(600));
    this.coarse = ['at', ...names].map(() => new Ring(1440));
    this.pending = [];
  }

  push(at, row) {
    const values = [at, ...this.names.map((name) => row[name] ?? NaN)];
    this.fine.forEach((ring, i) => ring.push(values[i]));
    this.pending.push(values);
    if (at - this.pending[0][0] < 60) return;
    const rows = this.pending;
    this.pending = [];
    this.coarse.forEach((ring, i) => {
      const known = rows.map((one) => one[i]).filter((one) => !Number.isNaN(one));
      ring.push(known.length ? median(known) : NaN);
    });
  }

  /** Columns for a chart: times first, null where nothing was measured. */
  columns(isLong) {
    return (isLong ? this.coarse : this.fine).map((ring) => ring.toArray().map((one) => (Number.isNaN(one) ? null : one)));
  }

  recent(name, most) {
    const values = this.fine[this.names.indexOf(name) + 1].toArray();
    return values.slice(-most);
  }
}
