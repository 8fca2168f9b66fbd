// The search field, its example picture or clip, and the filters; they say what the address says.

import { byId, make } from "./dom.js";
import { FILTERS, NO_EXAMPLE, NO_MOMENT } from "./address.js";
import { pathParts } from "./format.js";

export class SearchForm {
  /**
   * @param {(changes: object) => void} search Goes to a state with these changes.
   * @param {PictureShelf} pictures Where dropped pictures lie.
   */
  constructor(search, pictures) {
    this.search = search;
    this.pictures = pictures;
    this.filled = new Map();
    this.form = byId("search");
    this.query = byId("query");
    this.filters = [...FILTERS].map((name) => this.form.elements[name]);
    this.listen();
  }

  listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.search({ ...NO_MOMENT, ...this.values(), ...(this.query.value.trim() ? NO_EXAMPLE : {}) });
    });
    for (const field of this.filters) field.addEventListener("change", () => this.search({ ...NO_MOMENT, ...this.values() }));
    byId("filters-open").addEventListener("click", () => this.openFilters(byId("filters").hidden));
    byId("filters-clear").addEventListener("click", () => {
      for (const field of this.filters) field.value = "";
      this.search({ ...NO_MOMENT, ...this.values() });
    });
    byId("example-remove").addEventListener("click", () => {
      this.search({ ...NO_MOMENT, ...NO_EXAMPLE });
      this.query.focus();
    });
    byId("collection").addEventListener("change", (event) => {
      this.search({ ...NO_MOMENT, ...NO_EXAMPLE, collection: event.target.value });
    });
  }

  values() {
    const filters = this.filters.map((field) => [field.name, field.value.trim()]);
    return { query: this.query.value.trim(), ...Object.fromEntries(filters) };
  }

  openFilters(open) {
    byId("filters").hidden = !open;
    byId("filters-open").setAttribute("aria-expanded", String(open));
  }

  /** Shows a state. */
  show(state) {
    this.fill(this.query, state.query);
    for (const field of this.filters) this.fill(field, state[field.name]);
    const used = FILTERS.filter((name) => state[name]).length;
    byId("filters-count").textContent = String(used);
    byId("filters-count").hidden = !used;
    byId("filters-open").setAttribute("aria-label", used ? `Filters, ${used} in use` : "Filters");
    byId("collection").value = state.collection || byId("collection").options[0]?.value || "";
    this.showExample(state);
  }

  /** Fills a field, unless it shows that value already: what is being typed stays. */
  fill(field, value) {
    if ((this.filled.get(field) ?? "") !== value) field.value = value;
    this.filled.set(field, value);
  }

  showExample(state) {
    const picture = state.picture ? this.pictures.get(state.picture) : null;
    const shown = Boolean(state.like || state.picture);
    byId("example").hidden = !shown;
    byId("example-picture").hidden = !picture;
    byId("example-text").textContent = state.like ? "Like a moment" : pathParts(picture?.name ?? "A picture").name;
    if (picture) this.pictures.draw(picture, byId("example-picture"));
  }

  /** Offers the collections, if there are several. */
  offer(collections, chosen) {
    byId("collection").replaceChildren(
      ...collections.map(({ id, name }) => make("option", { value: id }, name)),
    );
    byId("collection").value = chosen;
    byId("collections").hidden = collections.length < 2;
  }
}
