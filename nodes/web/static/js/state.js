// All that the page knows of the pipeline, from the messages on the broker. No element, no socket, no clock.

import { list, number, numbers, object, parseObject, text, Unreadable } from './checked.js';
import { tierOrder } from './format.js';
import { readGraph } from './graph_state.js';
import { readPlan, readResult, StreamState } from './stream_state.js';

const MOST_NODES = 1000;
const MOST_STREAMS = 1000;
const STALE_REPORTS = 3;
const LIVING = ['ready', 'draining'];
const ALIVE_OR_COMING = ['init', ...LIVING];

/** Topics below the prefix that the page reads, and whether the broker keeps them. */
export const TOPICS = {
  'node/+/state': 1, 'node/+/info': 1, 'node/+/link': 1, 'node/+/applied': 1, 'plan/+': 1, 'model/+': 1,
  'node/+/telemetry': 0, 'result/+': 0,
};

export class PipelineState {
  constructor(settings) {
    this.settings = settings;
    this.nodes = new Map();
    this.streams = new Map();
    this.graphs = new Map();
    this.unreadable = { total: 0, last: '' };
    this.since = null;
    this.version = 0;
    this.places = null;
    for (const [id, section] of Object.entries(settings.nodes)) this.node(id).tier = section.tier;
    this.node(settings.planner).tier = 'planner';
    for (const id of Object.keys(settings.streams)) this.stream(id);
  }

  node(id) {
    let found = this.nodes.get(id);
    if (found === undefined) {
      if (this.nodes.size >= MOST_NODES) throw new Unreadable(`more than ${MOST_NODES} nodes`);
      found = { id, tier: '', state: null, info: null, link: null, telemetry: new Map(), telemetryAt: null, applied: null };
      this.nodes.set(id, found);
      this.places = null;
    }
    return found;
  }

  stream(id) {
    let found = this.streams.get(id);
    if (found === undefined) {
      if (this.streams.size >= MOST_STREAMS) throw new Unreadable(`more than ${MOST_STREAMS} streams`);
      found = new StreamState(id);
      this.streams.set(id, found);
    }
    return found;
  }

  /** Take one message; `topic` is relative to the pipeline. What is not readable is counted, and changes nothing. */
  learn(topic, payload, now) {
    this.version += 1;
    try {
      this.take(topic.split('/'), payload, now);
    } catch (error) {
      if (!(error instanceof Unreadable) && !(error instanceof TypeError)) throw error;
      this.note(topic, error.message);
    }
  }

  /** Count a message that cannot be read, and remember why. */
  note(topic, why) {
    this.unreadable = { total: this.unreadable.total + 1, last: `${text(topic, 120)}: ${text(why, 200)}` };
  }

  take([kind, id, what], payload, now) {
    if (kind === 'node') this.takeOfNode(id, what, payload, now);
    else if (kind === 'plan') this.takePlan(id, payload);
    else if (kind === 'result') this.stream(id).learnResult(readResult(parseObject(payload)), now);
    else if (kind === 'model' && payload.length) this.graphs.set(id, readGraph(parseObject(payload)));
  }

  takeOfNode(id, what, payload, now) {
    if (payload.length === 0) {
      if (what === 'state') {
        this.nodes.delete(id);
        this.places = null;
      }
      return;
    }
    const value = parseObject(payload);
    const node = this.node(id);
    if (what === 'telemetry') {
      node.telemetry = numbers(value);
      node.telemetryAt = now;
    } else if (what === 'state') this.takeState(node, value);
    else if (what === 'info') this.takeInfo(node, value);
    else if (what === 'link') node.link = numbers(value);
    else if (what === 'applied') node.applied = { session: text(value.session), streams: readApplied(value.streams) };
  }

  takeState(node, value) {
    const session = text(value.session);
    const state = text(value.state, 20);
    // an earlier process's will says nothing about the present one
    if (state === 'lost' && node.state !== null && node.state.session !== session) return;
    if (node.state !== null && node.state.session !== session) {
      node.telemetry = new Map();
      node.telemetryAt = null;
    }
    const tier = text(value.tier, 20);
    if (tier !== node.tier) this.places = null;
    node.tier = tier;
    node.state = { state, session, host: text(value.host, 200), pid: number(value.pid), message: text(value.message, 1000) };
  }

  takeInfo(node, value) {
    node.info = {
      version: text(value.version, 60), engine: text(value.engine, 60), engineVersion: text(value.engine_version, 60),
      threads: number(value.threads), hardware: text(value.hardware, 200), role: text(value.role, 20), session: text(value.session),
      models: Object.entries(object(value.models ?? {}, 'models')).slice(0, 1000).map(([name, digest]) => [text(name, 128), text(digest, 128)]),
      streams: new Set(Object.keys(object(value.streams ?? {}, 'streams')).slice(0, 1000)),
    };
    for (const stream of node.info.streams) this.stream(stream);
  }

  takePlan(id, payload) {
    if (payload.length === 0) {
      this.stream(id).newest = null;
      return;
    }
    const plan = readPlan(parseObject(payload));
    if (plan.stream !== id) throw new Unreadable(`the plan is of ${text(plan.stream, 60)}`);
    this.stream(id).learnPlan(plan);
  }

  // What follows from it.

  stateOf(id, now) {
    const node = this.nodes.get(id);
    if (node === undefined || node.state === null) return 'absent';
    if (LIVING.includes(node.state.state) && this.isSilent(node, now)) return 'silent';
    return node.state.state;
  }

  isSilent(node, now) {
    const limit = Math.max(STALE_REPORTS * this.settings.telemetry_interval_s, 2);
    return node.telemetryAt !== null && now - node.telemetryAt > limit;
  }

  isAlive(id) {
    return LIVING.includes(this.nodes.get(id)?.state?.state);
  }

  sortedNodes() {
    return [...this.nodes.values()].sort((a, b) => tierOrder(a.tier) - tierOrder(b.tier) || a.id.localeCompare(b.id, 'en', { numeric: true }));
  }

  /** The how-manieth of its tier a node is, by name, from 0; 0 for one that is not known. */
  placeInTier(id) {
    if (this.places === null) {
      const counts = new Map();
      this.places = new Map(this.sortedNodes().map((node) => {
        const place = counts.get(node.tier) ?? 0;
        counts.set(node.tier, place + 1);
        return [node.id, place];
      }));
    }
    return this.places.get(id) ?? 0;
  }

  sortedStreams() {
    return [...this.streams.values()].sort((a, b) => a.id.localeCompare(b.id, 'en', { numeric: true }));
  }

  deviceOf(stream) {
    for (const node of this.nodes.values()) if (node.info?.streams.has(stream.id) && this.isAlive(node.id)) return node.id;
    const plan = stream.plans.get(stream.newest);
    return plan?.stages.find((stage) => stage.tier === 'device')?.node ?? this.settings.streams[stream.id]?.device ?? '';
  }

  /** What a node says of a stream, if its present process says it. */
  appliedOf(nodeId, streamId) {
    const node = this.nodes.get(nodeId);
    if (!node?.applied || node.applied.session !== node.state?.session) return null;
    return node.applied.streams.get(streamId) ?? null;
  }

  /** The plan that frames run under, the one that is coming, and the stream's state in a word. */
  planOf(stream) {
    const device = this.deviceOf(stream);
    const held = this.appliedOf(device, stream.id);
    const active = stream.plans.get(held?.active) ?? null;
    const newest = stream.plans.get(stream.newest) ?? null;
    const coming = newest !== null && newest.epoch !== held?.active ? newest : null;
    return { device, active, coming, state: this.streamState(stream, device, held, active, coming) };
  }

  streamState(stream, device, held, active, coming) {
    const life = this.nodes.get(device)?.state?.state;
    if (life === 'stopped') return 'stopped';
    if (held !== null && held.active !== null) {
      const isWhole = (active?.stages ?? [{ node: device }]).every((stage) => this.isAlive(stage.node));
      return isWhole ? 'running' : 'interrupted';
    }
    if (coming === null) return 'no_plan';
    const isRefused = coming.stages.some((stage) => this.appliedOf(stage.node, stream.id)?.refused.has(String(coming.epoch)));
    return isRefused ? 'refused' : 'preparing';
  }

  modelOf(stream) {
    return stream.plans.get(stream.newest)?.model ?? this.settings.streams[stream.id]?.model ?? '';
  }

  /** What is wrong, in words. */
  problems(now) {
    const found = [];
    for (const node of this.sortedNodes()) {
      const state = this.stateOf(node.id, now);
      const isAwaited = node.id in this.settings.nodes || node.id === this.settings.planner;
      if (state === 'silent') found.push(`${node.id} has not reported for ${Math.round(now - node.telemetryAt)} s`);
      else if (isAwaited && !ALIVE_OR_COMING.includes(state)) {
        found.push(`${node.id} is ${state}${node.state?.message ? `: ${node.state.message}` : ''}`);
      }
    }
    return found;
  }
}

function readApplied(value) {
  const found = new Map();
  for (const [stream, one] of Object.entries(object(value ?? {}, 'streams')).slice(0, 1000)) {
    found.set(stream, {
      seen: number(one.seen), active: number(one.active), ready: new Set(list(one.ready)), holds: list(one.holds),
      refused: new Map(Object.entries(one.refused ?? {}).slice(0, 64).map(([epoch, why]) => [epoch, text(why, 1000)])),
    });
  }
  return found;
}
