// Elements of the page. Text of the server only ever becomes a text node.

/** Returns the element of an id. */
export const byId = (id) => document.getElementById(id);

/**
 * Makes an element.
 * @param {string} name Its tag.
 * @param {object} attributes Attributes; `on` holds listeners, `vars` CSS variables. False, null and undefined leave one out.
 * @param {...(Node|string|number|null|false)} children Texts stay texts.
 */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (key === "vars") setVariables(element, value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== false && child !== undefined));
  return element;
}

/** Sets CSS variables of an element, without the dashes in their names. */
export function setVariables(element, values) {
  for (const [name, value] of Object.entries(values)) element.style.setProperty(`--${name}`, value);
}

/** Makes one of the icons that index.html holds. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Makes a button with a text, and perhaps an icon before it. */
export function button(text, listener, { picture, ...attributes } = {}) {
  return make("button", { type: "button", on: { click: listener }, ...attributes }, picture ? icon(picture) : null, make("span", {}, text));
}

/** Makes a paragraph that a screen reader reads at once, as for an error. */
export function alarm(text, ...more) {
  return make("div", { class: "note alarm", role: "alert" }, make("p", {}, text), ...more);
}

/** Whether a click means the link itself, and not a new tab or window. */
export function isPlain(event) {
  return event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
}
