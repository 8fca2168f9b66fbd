// Calls of the service, and its problem documents as errors.

const LONGEST_WAIT_SECONDS = 5;

/** An answer of the service that is not the one asked for; `message` is for people. */
export class Problem extends Error {
  constructor(status, message, retryAfterSeconds = 0) {
    super(message);
    this.status = status;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

const delay = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

/** Reads a response as JSON, or throws what it says is wrong. */
async function read(response) {
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({}));
  const message = problem.detail || problem.title || `The service answered ${response.status}.`;
  throw new Problem(response.status, message, Number(response.headers.get("Retry-After")) || 0);
}

/** Sends a request; a service that has too much to do is asked once more after the time that it names. */
async function send(address, options, attempts = 2) {
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The service does not answer. Is it still running?");
  }
  if (response.status === 401) location.reload(); // leads to the login, and back here
  try {
    return await read(response);
  } catch (error) {
    const { status, retryAfterSeconds } = error;
    if (status !== 503 || attempts === 1 || retryAfterSeconds > LONGEST_WAIT_SECONDS) throw error;
    await delay(retryAfterSeconds || 1);
    return send(address, options, attempts - 1);
  }
}

/** Gets JSON from a route with the given query; empty values are left out. */
export function get(route, query = {}, signal = undefined) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const text = new URLSearchParams(given).toString();
  return send(text ? `${route}?${text}` : route, { signal });
}

/** Posts JSON. */
export function post(route, body, signal = undefined) {
  return send(route, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
}

/** Posts a picture with the options of a search. */
export function postPicture(route, picture, options, signal = undefined) {
  const form = new FormData();
  form.append("options", JSON.stringify(options));
  form.append("picture", picture, picture.name || "picture");
  return send(route, { method: "POST", body: form, signal });
}

/** Adds a query to an address of this service, in place of what it says of the same names. */
export function withQuery(address, query) {
  const url = new URL(address, location.href);
  for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
  return url.pathname + url.search;
}

/** Returns the address of a thumbnail of a width in pixels. */
export function thumbnail(address, width) {
  return withQuery(address, { width: String(width) });
}
