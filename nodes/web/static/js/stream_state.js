// One stream: its plans by epoch, and what its results measured. No element of the page.

import { list, number, numbers, object, text, Unreadable, whole } from './checked.js';
import { median, percentile, Ring, Timeline } from './series.js';

const RESULTS = 64;
const SHOWN = 12;
const PLANS = 60;
const RATE_WINDOW_S = 5;
const PARTS = ['decode_seconds', 'queue_seconds', 'compute_seconds', 'encode_seconds'];

/** A plan as it was published, with what the page shows of it checked. */
export function readPlan(value) {
  const predicted = object(value.predicted, 'predicted');
  return {
    epoch: whole(value.epoch, 'epoch'),
    stream: text(value.stream),
    model: text(value.model),
    digest: text(value.digest),
    planner: text(value.planner, 80),
    objective: text(value.objective, 200),
    reason: text(value.reason, 4000),
    createdTs: number(value.created_ts),
    stages: list(value.stages, 3).map((stage) => ({
      tier: text(stage.tier, 20),
      node: text(stage.node, 128),
      first: text(stage.first, 200),
      last: text(stage.last, 200),
      blocks: list(stage.blocks).map((range) => [whole(range[0], 'block'), whole(range[1], 'block')]),
    })),
    tensors: readSent(value.tensors),
    results: readSent(value.results ?? []),
    tiles: value.tiles ? readTiles(value.tiles) : null,
    predicted: readPrediction(predicted),
    runnerUp: value.runner_up && value.runner_up.predicted ? { kind: text(value.runner_up.kind, 60), predicted: readPrediction(value.runner_up.predicted) } : null,
    planRequest: value.plan_request ?? null,
  };
}

/** Tensors that cross, or outputs that come back, each with its codec. */
function readSent(value) {
  return list(value).map((tensor) => ({
    tensor: whole(tensor.tensor, 'tensor'),
    name: text(tensor.name, 200),
    from: text(tensor.from, 20),
    to: list(tensor.to, 3).map((tier) => text(tier, 20)),
    nbytes: number(tensor.nbytes),
    codec: text(tensor.codec, 40),
  }));
}

/** A prediction; `low` and `high` are there when the planner says how sure it is. */
export function readPrediction(value) {
  const links = Object.entries(value.links ?? {}).slice(0, 8).map(([name, link]) => [text(name, 40), numbers(link)]);
  return {
    seconds: number(value.seconds),
    low: number(value.low ?? value.seconds_low),
    high: number(value.high ?? value.seconds_high),
    period: number(value.period_seconds),
    frameOverhead: number(value.frame_overhead_seconds),
    price: number(value.price),
    stages: numbers(value.stages, 8),
    links: new Map(links),
    ranges: value.ranges && typeof value.ranges === 'object' ? value.ranges : {},
  };
}

function readTiles(value) {
  return {
    from: text(value.from, 200),
    to: text(value.to, 200),
    first: whole(value.first, 'tiles'),
    last: whole(value.last, 'tiles'),
    rows: list(value.rows, 64).map((one) => whole(one, 'rows')),
    columns: list(value.columns, 64).map((one) => whole(one, 'columns')),
    workers: list(value.workers, 4096).map((one) => text(one, 128)),
    codecs: list(value.codecs ?? [], 64).map((one) => text(one.codec, 40)),
  };
}

export function readResult(value) {
  const result = {
    sequence: whole(value.sequence, 'sequence'),
    epoch: whole(value.epoch ?? 0, 'epoch'),
    ok: value.ok === true,
    seconds: number(value.seconds),
    ts: number(value.ts),
    attempt: number(value.attempt),
    error: text(value.error, 1000),
    task: text(value.task, 40),
    path: list(value.path, 8).map((stage) => {
      const read = { node: text(stage.node, 128), tier: text(stage.tier, 20) };
      for (const part of PARTS) read[part] = number(stage[part]) ?? 0;
      return read;
    }),
    links: numbers(value.links, 8),
    raw: value,
  };
  if (result.seconds === null) throw new Unreadable('seconds: no number');
  return result;
}

/** Keep what belongs to a frame, of the newest frames that are shown. */
function keep(table, item) {
  table.set(item.sequence, item);
  while (table.size > SHOWN) table.delete(table.keys().next().value);
}

export class StreamState {
  constructor(id) {
    this.id = id;
    this.plans = new Map();
    this.newest = null;
    this.results = [];
    this.shown = [];
    this.previews = new Map();
    this.maps = new Map();
    this.arrivals = new Ring(4096);
    this.timeline = new Timeline(['p50', 'p95', 'rate', 'predicted']);
    this.total = 0;
    this.errors = 0;
    this.lastError = null;
  }

  learnPlan(plan) {
    this.newest = plan.epoch;
    this.plans.delete(plan.epoch);
    this.plans.set(plan.epoch, plan);
    while (this.plans.size > PLANS) this.plans.delete(this.plans.keys().next().value);
  }

  learnResult(result, now) {
    this.arrivals.push(now);
    this.total += 1;
    if (result.ok) {
      this.results.push(result);
      if (this.results.length > RESULTS) this.results.shift();
    } else {
      this.errors += 1;
      this.lastError = { error: result.error, sequence: result.sequence, at: now };
    }
    this.shown.push(result);
    if (this.shown.length > SHOWN) this.shown.shift();
    // the raw message is of use for frames that are shown only
    if (this.results.length > SHOWN) this.results[this.results.length - SHOWN - 1].raw = null;
  }

  learnPreview(preview) {
    keep(this.previews, preview);
  }

  /** A map of classes of one frame. */
  learnMap(map) {
    keep(this.maps, map);
  }

  /** Results a second over the last seconds; null before there was time to say. */
  rate(now, since) {
    const window = Math.min(RATE_WINDOW_S, now - since);
    if (!(window >= 0.5)) return null;
    return this.arrivals.toArray().filter((at) => at > now - window).length / window;
  }

  /** What results of this epoch measured: seconds of the whole, of each stage and of each link. */
  measured(epoch) {
    const mine = this.results.filter((result) => result.epoch === epoch);
    const all = mine.map((result) => result.seconds);
    const stages = new Map();
    const links = new Map();
    for (const result of mine) {
      for (const stage of result.path) {
        const known = stages.get(stage.tier) ?? stages.set(stage.tier, { compute: [], queue: [] }).get(stage.tier);
        known.compute.push(stage.compute_seconds);
        known.queue.push(stage.queue_seconds);
      }
      for (const [name, value] of result.links) (links.get(name) ?? links.set(name, []).get(name)).push(value);
    }
    return {
      frames: mine.length,
      p50: median(all),
      p95: percentile(all, 0.95),
      stages: new Map([...stages].map(([tier, one]) => [tier, { compute: median(one.compute), queue: median(one.queue) }])),
      links: new Map([...links].map(([name, values]) => [name, median(values)])),
    };
  }
}
