// One colour for each node, wherever it is drawn: its tier's, turned a little by its place among the tier's nodes.

import { setAttribute } from './dom.js';
import { tierName } from './format.js';

/** Degrees of hue; more nodes than these share colours. Lightness stays, so that all can be read. */
const TURNS = [0, -30, 24, -52, 42];

/** Give an element, and what is in it, the colour of a node. */
export function paintNode(element, state, id, tier) {
  setAttribute(element, 'data-tier', tierName(tier ?? state.nodes.get(id)?.tier ?? ''));
  const turn = String(TURNS[state.placeInTier(id) % TURNS.length]);
  if (element.style.getPropertyValue('--turn') !== turn) element.style.setProperty('--turn', turn);
}
