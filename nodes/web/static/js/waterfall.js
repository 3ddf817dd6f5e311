// One frame's way as lanes from left to right, as shares of its seconds.

const LINKS = { device_edge: 'device to edge', edge_cloud: 'edge to cloud', device_cloud: 'device to cloud' };

/** Lanes with label, node (none for links), tier, seconds, and where they begin and end from 0 to 1. */
export function waterfall(frame) {
  const lanes = [];
  let at = 0;
  const add = (label, { node = '', tier = '' }, seconds, isWait = false) => {
    if (!(seconds > 0)) return;
    lanes.push({ label, node, tier, seconds, isWait, from: at, to: at + seconds });
    at += seconds;
  };
  const inside = frame.path.reduce((sum, stage) => sum + stage.queue_seconds + stage.compute_seconds, 0);
  const between = [...frame.links.values()].reduce((sum, one) => sum + one, 0);
  add('read and answered', frame.path[0] ?? {}, Math.max(0, frame.seconds - inside - between));
  frame.path.forEach((stage, i) => {
    add(`waits at ${stage.node}`, stage, stage.queue_seconds, true);
    add(`computed on ${stage.node}`, stage, stage.compute_seconds);
    const next = frame.path[i + 1];
    const key = next ? `${stage.tier}_${next.tier}` : 'return';
    add(next ? (LINKS[key] ?? key) : 'back to the device', {}, frame.links.get(key) ?? 0);
  });
  const whole = Math.max(at, frame.seconds, 1e-9);
  return lanes.map((lane) => ({ ...lane, from: lane.from / whole, to: lane.to / whole }));
}
