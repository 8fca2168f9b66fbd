// Numbers as people read them.

const pad = (number) => String(number).padStart(2, "0");

/** Writes seconds as 0:07 or 1:02:03; with `tenths`, as 0:07.3. */
export function clock(seconds, { tenths = false } = {}) {
  const whole = tenths ? Math.floor(seconds * 10 + 1e-6) / 10 : Math.floor(seconds + 1e-6);
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  const rest = Math.floor(whole % 60);
  const tenth = tenths ? `.${Math.floor((whole * 10 + 1e-6) % 10)}` : "";
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}${tenth}` : `${minutes}:${pad(rest)}${tenth}`;
}

/** Writes a span of time; seconds get tenths where whole ones would hide the span. */
export function span(start, end) {
  const tenths = end - start < 2;
  return `${clock(start, { tenths })} – ${clock(end, { tenths })}`;
}

/** Writes a number with its noun: 1 clip, 2 clips. */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** Writes a share as percent. */
export function percent(share) {
  if (share > 0 && share < 0.01) return "< 1 %";
  if (share > 0.99 && share < 1) return "> 99 %";
  return `${Math.round(share * 100)} %`;
}

/** Writes a signed number to two digits of the largest one beside it. */
export function signed(value, limit) {
  const decimals = limit ? Math.min(Math.max(1 - Math.floor(Math.log10(limit)), 0), 6) : 0;
  const text = Math.abs(value).toFixed(decimals);
  if (!Number(text)) return "0";
  return `${value < 0 ? "−" : "+"}${text}`;
}

/** Splits a path into the folder before its last slash, and the name. */
export function pathParts(path) {
  const cut = path.lastIndexOf("/") + 1;
  return { folder: path.slice(0, Math.max(cut - 1, 0)), name: path.slice(cut) };
}
