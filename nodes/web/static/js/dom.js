// Elements made of text nodes only: nothing that came over the network is ever parsed as HTML.

const SVG = 'http://www.w3.org/2000/svg';

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value === false || value === null || value === undefined) continue;
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

/** An HTML element; `properties` are attributes, or listeners under `onclick` and the like. */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same of an SVG element. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** Set the text where it differs: the browser then lays out only what changed. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Set or remove an attribute where it differs. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

export function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

/**
 * Children by key: those that stay keep their element (and the focus in it), others come and go.
 * `create(item)` returns {node, update(item)}.
 */
export class KeyedList {
  constructor(parent, create) {
    this.parent = parent;
    this.create = create;
    this.parts = new Map();
  }

  update(items, keyOf) {
    const seen = new Set();
    let place = this.parent.firstChild;
    for (const item of items) {
      const key = keyOf(item);
      seen.add(key);
      let part = this.parts.get(key);
      if (part === undefined) {
        part = this.create(item);
        this.parts.set(key, part);
      }
      if (part.node === place) place = place.nextSibling;
      else this.parent.insertBefore(part.node, place);
      part.update(item);
    }
    for (const [key, part] of this.parts) {
      if (!seen.has(key)) {
        part.node.remove();
        this.parts.delete(key);
      }
    }
  }
}

/** A card with a heading; `note` is a place for a few words next to it. */
export function card(title, ...children) {
  const note = el('span', { class: 'note' });
  const node = el('section', { class: 'card', 'aria-label': title }, el('header', {}, el('h2', {}, title), note), ...children);
  return { node, note };
}
