// The page: its address is its state, and every part shows what the address says.

import { get } from "./api.js";
import { NO_EXAMPLE, NO_MOMENT, readAddress, searchKey, writeAddress } from "./address.js";
import { alarm, byId, isPlain, make } from "./dom.js";
import { Detail } from "./detail.js";
import { Library } from "./library.js";
import { PictureShelf } from "./pictures.js";
import { Results } from "./results.js";
import { SearchForm } from "./search_form.js";

let state = readAddress(location.search);
let collections = [];

/** Whether the collections are known; a search before that waits for them. */
let isReady = false;

const collection = () => collections.find(({ id }) => id === state.collection) ?? collections[0] ?? null;

const pictures = new PictureShelf((key) => go({ ...NO_MOMENT, ...NO_EXAMPLE, query: "", picture: key }));
const form = new SearchForm((changes) => go(changes), pictures);
const results = new Results({ open: go, pictures, collection, loaded: () => detail.show(state) });
const detail = new Detail({ open: go, close: closeDetail, match: (clip) => results.match(clip), collection });
const library = new Library({ collections: () => collections, collection, changed: refresh });

/** Goes to the state with some changes. Moments that follow one another replace each other in the history. */
function go(changes, { play = false, replace = false } = {}) {
  const before = state;
  state = { ...state, ...changes };
  if (writeAddress(before) !== writeAddress(state)) {
    history[replace ? "replaceState" : "pushState"](null, "", writeAddress(state));
  }
  show({ play, focus: play && !replace });
  if (searchKey(before) !== searchKey(state)) scrollTo({ top: 0 });
}

function show({ play = false, focus = false } = {}) {
  document.title = state.query ? `${state.query} – hbi-infer` : "hbi-infer";
  form.show(state);
  if (!isReady) return;
  results.show(state);
  detail.show(state, { play, focus });
  library.follow();
  showNotice();
}

function closeDetail() {
  results.focusAfter(() => go(NO_MOMENT));
}

async function loadCollections() {
  const found = await get("/v1/collections");
  ({ collections } = found);
  byId("logout").hidden = !found.needs_token;
  form.offer(collections, collection()?.id);
}

function showNotice() {
  const notice = collection()?.notice;
  byId("notices").replaceChildren(...(notice ? [make("p", { class: "note" }, notice)] : []));
}

async function refresh() {
  await loadCollections();
  results.refresh();
}

const isTyping = (element) => element.matches("input, textarea, select") && !["radio", "checkbox"].includes(element.type);

function step(by) {
  const target = results.neighbour(by);
  if (target) go(target, { play: true, replace: true });
}

document.addEventListener("keydown", (event) => {
  if (!isPlain({ ...readModifiers(event), button: 0 }) || byId("library").open) return;
  if (event.key === "Escape" && detail.isOpen && !(isTyping(event.target) && event.target.value)) return closeDetail();
  if (event.key === "ArrowDown" && event.target === form.query) return results.focusFirst(event);
  if (isTyping(event.target)) return;
  if (event.key === "/") {
    event.preventDefault();
    if (detail.isOpen) closeDetail();
    form.query.focus();
    form.query.select();
  }
  if (event.key === "j") step(1);
  if (event.key === "k") step(-1);
});

function readModifiers({ metaKey, ctrlKey, altKey }) {
  return { metaKey, ctrlKey, altKey, shiftKey: false };
}

window.addEventListener("popstate", () => {
  state = readAddress(location.search);
  show();
});

byId("home").addEventListener("click", (event) => {
  if (!isPlain(event)) return;
  event.preventDefault();
  go({ ...readAddress(""), collection: state.collection });
});

try {
  await loadCollections();
  isReady = true;
  show();
} catch (error) {
  byId("notes").replaceChildren(alarm(error.message));
}
