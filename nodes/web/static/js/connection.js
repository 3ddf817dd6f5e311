// The line to the broker: MQTT 5 over a websocket of the same origin, and requests with their answers.

import mqtt from '/vendor/mqtt.esm.js';
import { TOPICS } from './state.js';

const ANSWER_MS = 10_000;
const NOT_AUTHORIZED = 0x87;
const REFUSALS = { 0x84: 'it does not speak MQTT 5', 0x86: 'the user name or password is wrong', 0x87: 'this login may not connect', 0x88: 'it is not available', 0x8a: 'this client is banned' };

export class RequestFailed extends Error {}

export class Connection {
  /**
   * `onMessage(topic, payload, correlation)` with topics relative to the pipeline; `onStatus({state, why})` with state `up`, `wait`
   * or `down`.
   */
  constructor(settings, { onMessage, onStatus }) {
    this.settings = settings;
    this.onMessage = onMessage;
    this.onStatus = onStatus;
    this.waiting = new Map();
    this.extra = new Set();
    this.why = '';
    this.replyTopic = `${settings.prefix}reply/${settings.reply_client}`;
  }

  start() {
    const { settings } = this;
    const url = new URL(settings.relay, location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    this.client = mqtt.connect(url.href, {
      protocolVersion: 5, clean: true, clientId: settings.client_id, keepalive: 30, reconnectPeriod: 1000, connectTimeout: 8000,
      resubscribe: false, queueQoSZero: false, timerVariant: 'native',
      username: settings.login?.username, password: settings.login?.password ?? undefined,
      createWebsocket: (address, protocols) => this.websocket(address, protocols),
    });
    this.client.on('connect', () => this.connected());
    this.client.on('message', (topic, payload, packet) => this.message(topic, payload, packet.properties?.correlationData));
    this.client.on('close', () => this.closed());
    this.client.on('error', (error) => {
      if (typeof error.code === 'number') this.why = `the broker refuses the connection: ${REFUSALS[error.code] ?? `reason ${error.code}`}`;
    });
  }

  websocket(address, protocols) {
    const socket = new WebSocket(address, protocols);
    socket.binaryType = 'arraybuffer';
    socket.addEventListener('close', (event) => {
      if (event.reason) this.why = event.reason;
    });
    return socket;
  }

  connected() {
    this.why = '';
    const { prefix } = this.settings;
    const wanted = Object.entries(TOPICS).map(([topic, qos]) => [prefix + topic, { qos }]);
    for (const topic of this.extra) wanted.push([prefix + topic, { qos: 0 }]);
    wanted.push([this.replyTopic, { qos: 1 }]);
    this.client.subscribe(Object.fromEntries(wanted));
    this.onStatus({ state: 'up', why: '' });
  }

  closed() {
    for (const request of [...this.waiting.values()]) request.fail(new RequestFailed('the connection to the broker ended before the answer came'));
    this.onStatus({ state: 'down', why: this.why });
  }

  message(topic, payload, correlation) {
    if (topic === this.replyTopic) this.answered(payload);
    else if (topic.startsWith(this.settings.prefix)) this.onMessage(topic.slice(this.settings.prefix.length), payload, correlation);
  }

  /** Also listen to a topic, for as long as it is shown. */
  follow(topic) {
    this.extra.add(topic);
    if (this.client.connected) this.client.subscribe(this.settings.prefix + topic, { qos: 0 });
  }

  unfollow(topic) {
    if (this.extra.delete(topic) && this.client.connected) this.client.unsubscribe(this.settings.prefix + topic);
  }

  answered(payload) {
    let answer;
    try {
      answer = JSON.parse(new TextDecoder().decode(payload));
    } catch {
      return;
    }
    this.waiting.get(answer?.request_id)?.done(answer);
  }

  /** Ask a node or the planner; resolves with its answer, rejects with RequestFailed in words that say why. */
  ask(node, verb, request) {
    if (this.settings.why_read_only) return Promise.reject(new RequestFailed(this.settings.why_read_only));
    if (!this.client.connected) return Promise.reject(new RequestFailed('not connected to the broker'));
    const id = crypto.getRandomValues(new Uint32Array(4)).join('-');
    return new Promise((resolve, reject) => {
      const over = () => {
        clearTimeout(timer);
        this.waiting.delete(id);
      };
      const fail = (error) => {
        over();
        reject(error);
      };
      const late = () => fail(new RequestFailed(`${node} has not answered within ${ANSWER_MS / 1000} s; is it running, and may this login give commands?`));
      const timer = setTimeout(late, ANSWER_MS);
      const done = (answer) => {
        over();
        if (answer.ok) resolve(answer);
        else reject(new RequestFailed(String(answer.error ?? 'refused without a reason').slice(0, 2000)));
      };
      this.waiting.set(id, { done, fail });
      const payload = JSON.stringify({ ...request, reply_to: this.replyTopic, request_id: id });
      this.client.publish(`${this.settings.prefix}cmd/${node}/${verb}`, payload, { qos: 1 }, (error) => {
        if (error) fail(new RequestFailed(error.code === NOT_AUTHORIZED ? 'the broker does not let this login give commands' : `the broker refuses it: ${error.message}`));
      });
    });
  }
}
