// What the stream is planned for: objective and constraints. Priced before it is asked for.

import { card, el, setHidden, setText } from './dom.js';
import { priceFigures } from './plan_card.js';

const OBJECTIVES = ['latency', 'throughput', 'backbone', 'price'];

function field(label, input) {
  return el('label', {}, label, input);
}

function choice(...options) {
  return el('select', {}, options.map(([value, text]) => el('option', { value }, text)));
}

export class RequestCard {
  constructor(app, id) {
    const { node, note } = card('Objective and constraints');
    Object.assign(this, { app, id, node, note, shown: undefined });
    this.objective = el('input', { list: 'objectives', autocomplete: 'off', spellcheck: 'false', maxlength: 200 });
    const names = el('datalist', { id: 'objectives' }, OBJECTIVES.map((value) => el('option', { value })));
    this.raw = choice(['', 'anywhere'], ['device', 'on the device'], ['edge', 'on device and edge']);
    this.depth = el('input', { type: 'number', min: 0, step: 1, placeholder: '0' });
    this.upload = { device_edge: this.limit(), edge_cloud: this.limit() };
    this.exclude = el('input', { autocomplete: 'off', spellcheck: 'false', placeholder: 'node ids, with commas', maxlength: 1000 });
    this.answer = el('div', { class: 'price', role: 'status' });
    this.error = el('p', { class: 'error', role: 'alert' });
    this.why = el('p', { class: 'note' });
    this.buttons = [
      el('button', { type: 'button', onclick: () => this.price() }, 'What would it cost?'),
      el('button', { type: 'submit', class: 'main' }, 'Plan for it'),
      el('button', { type: 'button', onclick: () => this.ask(null) }, 'Back to the configuration'),
    ];
    this.form = el('form', { class: 'form', onsubmit: (event) => this.submit(event), oninput: () => { this.isEdited = true; } },
      field('Planned for', this.objective), names, field('Raw frames may be', this.raw), field('Blocks at least on the device', this.depth),
      field('At most from device to edge, MB a frame', this.upload.device_edge), field('At most from edge to cloud, MB a frame', this.upload.edge_cloud), field('Without these nodes', this.exclude),
      el('div', { class: 'whole row' }, this.buttons));
    node.append(this.form, this.answer, this.error, this.why);
    this.inputs = [this.objective, this.raw, this.depth, this.exclude, ...Object.values(this.upload)];
  }

  limit() {
    return el('input', { type: 'number', min: 0, step: 'any', placeholder: 'no limit' });
  }

  update({ plan }) {
    const why = this.app.settings.why_read_only;
    for (const input of [...this.inputs, ...this.buttons]) input.disabled = Boolean(why) || this.isAsking === true;
    setText(this.why, why ? `You can look, but not change it: ${why}.` : '');
    setHidden(this.why, !why);
    if (!plan) return;
    setText(this.note, plan.planRequest ? 'as a person has asked' : 'as configured');
    setHidden(this.buttons[2], !plan.planRequest);
    const key = JSON.stringify([plan.objective, plan.planRequest]);
    if (key === this.shown || this.isEdited) return;
    this.shown = key;
    this.kept = plan.planRequest ?? {};
    this.fill(plan.objective, this.kept.constraints ?? {});
  }

  fill(objective, constraints) {
    this.objective.value = objective;
    this.raw.value = constraints.raw_stays_on ?? '';
    this.depth.value = constraints.min_depth ?? '';
    for (const [name, input] of Object.entries(this.upload)) input.value = constraints.upload_limit_mb?.[name] ?? '';
    this.exclude.value = (constraints.exclude_nodes ?? []).join(', ');
  }

  /** The request as a configuration has it; what this form does not show stays as it was. */
  read() {
    const constraints = { ...(this.kept?.constraints ?? {}) };
    const set = (name, value) => {
      if (value === null) delete constraints[name];
      else constraints[name] = value;
    };
    set('raw_stays_on', this.raw.value || null);
    set('min_depth', this.depth.value === '' ? null : Number(this.depth.value));
    const limits = Object.entries(this.upload).filter(([, input]) => input.value !== '').map(([name, input]) => [name, Number(input.value)]);
    set('upload_limit_mb', limits.length ? Object.fromEntries(limits) : null);
    const excluded = this.exclude.value.split(',').map((name) => name.trim()).filter(Boolean);
    set('exclude_nodes', excluded.length ? excluded : null);
    return { ...(this.kept?.planner ? { planner: this.kept.planner } : {}), objective: this.objective.value.trim() || 'latency', constraints };
  }

  submit(event) {
    event.preventDefault();
    this.ask(this.read());
  }

  price() {
    return this.run(async () => {
      const answer = await this.app.connection.ask(this.app.settings.planner, 'price', { stream: this.id, plan_request: this.read() });
      this.answer.replaceChildren(...priceFigures(answer));
    });
  }

  ask(planRequest) {
    return this.run(async () => {
      await this.app.connection.ask(this.app.settings.planner, 'objective', { stream: this.id, plan_request: planRequest });
      this.isEdited = false;
      this.shown = undefined;
    });
  }

  async run(work) {
    this.isAsking = true;
    setText(this.error, '');
    this.answer.replaceChildren();
    this.app.wantDraw();
    try {
      await work();
    } catch (error) {
      setText(this.error, error.message);
    }
    this.isAsking = false;
    this.app.wantDraw();
  }
}
