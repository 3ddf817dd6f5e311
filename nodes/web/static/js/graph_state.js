// A model's graph, from its manifest: blocks in order, tensors with their bytes, and what crosses where it is cut.

import { list, text, Unreadable, whole } from './checked.js';

const MOST = 20_000;
const ITEM_BYTES = { float16: 2, bfloat16: 2, float32: 4, float64: 8, int8: 1, uint8: 1, bool: 1, int16: 2, uint16: 2, int32: 4, uint32: 4, int64: 8, uint64: 8 };

/** Read a manifest; each block's inputs and outputs are ids of tensors. */
export function readGraph(value) {
  const tensors = list(value.tensors, MOST).map((tensor) => {
    const shape = list(tensor.shape, 16).map((size) => whole(size, 'shape'));
    return { name: text(tensor.name, 200), shape, nbytes: shape.reduce((a, b) => a * b, ITEM_BYTES[tensor.dtype] ?? 4) };
  });
  const isTensor = (id) => {
    if (!(whole(id, 'tensor') < tensors.length)) throw new Unreadable('a tensor that is not there');
    return id;
  };
  const blocks = list(value.blocks, MOST).map((block, index) => ({
    index, name: text(block.name, 200), kind: text(block.kind, 60),
    inputs: list(block.inputs, MOST).map(isTensor), outputs: list(block.outputs, MOST).map(isTensor),
    macs: typeof block.macs === 'number' ? block.macs : 0, parameters: typeof block.parameters === 'number' ? block.parameters : 0,
  }));
  if (blocks.length === 0) throw new Unreadable('a model without blocks');
  const producer = new Int32Array(tensors.length).fill(-1);
  const lastReader = new Int32Array(tensors.length).fill(-1);
  for (const block of blocks) {
    for (const tensor of block.outputs) producer[tensor] = block.index;
    for (const tensor of block.inputs) lastReader[tensor] = Math.max(lastReader[tensor], block.index);
  }
  return { name: text(value.name, 200), digest: text(value.digest, 128), blocks, tensors, producer, lastReader, outputs: list(value.outputs, 64) };
}

/** Tensors made before `at` and read from it on: what crosses where the order of blocks is cut there. */
export function crossingAt(graph, at) {
  const found = [];
  for (let tensor = 0; tensor < graph.tensors.length; tensor += 1) {
    if (graph.producer[tensor] >= 0 && graph.producer[tensor] < at && graph.lastReader[tensor] >= at) found.push(tensor);
  }
  return found;
}

/** Bytes that cross at each place where the order could be cut, 0 to the number of blocks. */
export function crossingBytes(graph) {
  const change = new Float64Array(graph.blocks.length + 2);
  graph.tensors.forEach((tensor, id) => {
    const [made, read] = [graph.producer[id], graph.lastReader[id]];
    if (made < 0 || read <= made) return;
    change[made + 1] += tensor.nbytes;
    change[read + 1] -= tensor.nbytes;
  });
  let sum = 0;
  return Float64Array.from({ length: graph.blocks.length + 1 }, (_, at) => (sum += change[at]));
}

/** The tier of each block under a plan. */
export function placementOf(graph, plan) {
  const tiers = new Array(graph.blocks.length).fill('');
  const nodes = new Array(graph.blocks.length).fill('');
  for (const stage of plan.stages) {
    for (const [from, to] of stage.blocks) {
      for (let block = from; block < Math.min(to, tiers.length); block += 1) [tiers[block], nodes[block]] = [stage.tier, stage.node];
    }
  }
  return { tiers, nodes };
}

/** Where a plan cuts the order of blocks, if that is how it is placed: the first block on the edge and in the cloud. */
export function cutsOf(tiers) {
  const firstOn = (wanted) => {
    const found = tiers.findIndex((tier) => wanted.includes(tier));
    return found < 0 ? tiers.length : found;
  };
  const cuts = { edge: firstOn(['edge', 'cloud']), cloud: firstOn(['cloud']) };
  const isInOrder = tiers.every((tier, i) => tier === (i < cuts.edge ? 'device' : i < cuts.cloud ? 'edge' : 'cloud'));
  return { ...cuts, isInOrder };
}
