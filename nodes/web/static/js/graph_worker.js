// Places the blocks of a graph, off the page's thread: a thousand of them take seconds.

import { Graph, layout } from '/vendor/dagre.esm.js';

self.addEventListener('message', ({ data: { id, blocks, edges, size } }) => {
  const graph = new Graph();
  graph.setGraph({ rankdir: 'TB', nodesep: 14, ranksep: 26, ranker: blocks > 300 ? 'longest-path' : 'network-simplex' });
  graph.setDefaultEdgeLabel(() => ({}));
  for (let i = 0; i < blocks; i += 1) graph.setNode(String(i), { width: size.width, height: size.height });
  for (const [from, to] of edges) graph.setEdge(String(from), String(to));
  layout(graph);
  const { width, height } = graph.graph();
  const places = Array.from({ length: blocks }, (_, i) => {
    const { x, y } = graph.node(String(i));
    return [x, y];
  });
  const lines = edges.map(([from, to]) => graph.edge(String(from), String(to)).points.map(({ x, y }) => [x, y]));
  self.postMessage({ id, width, height, places, lines });
});
