// The state of the page, which is its address: what is searched, and which moment is open.

/** Every key of the state with its name in the address. The rest of the page knows keys only. */
const NAMES = {
  query: "q",
  collection: "in",
  like: "like",
  picture: "picture",
  folder: "folder",
  name: "name",
  without: "without",
  min: "min",
  max: "max",
  newer: "newer",
  older: "older",
  copies: "copies",
  poor: "poor",
  all: "all",
  video: "video",
  clip: "clip",
  at: "t",
};

export const FILTERS = ["folder", "name", "without", "min", "max", "newer", "older", "copies", "poor", "all"];

/** What each search has anew: nothing open, no example. */
export const NO_MOMENT = { video: "", clip: "", at: "" };
export const NO_EXAMPLE = { like: "", picture: "" };

/** Reads the state from the search part of an address; a missing key is "". */
export function readAddress(search) {
  const values = new URLSearchParams(search);
  return Object.fromEntries(Object.entries(NAMES).map(([key, name]) => [key, values.get(name) ?? ""]));
}

/** Writes the state as an address of this page. */
export function writeAddress(state) {
  const values = new URLSearchParams();
  for (const [key, name] of Object.entries(NAMES)) if (state[key]) values.set(name, state[key]);
  const text = values.toString();
  return text ? `/?${text}` : "/";
}

/** Returns what two states have in common if they show the same results. */
export function searchKey(state) {
  return writeAddress({ ...state, ...NO_MOMENT });
}

/** Whether the state asks for a search; otherwise the videos are listed. */
export function isSearch(state) {
  return Boolean(state.query || state.like || state.picture);
}
