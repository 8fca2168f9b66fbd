// Pictures to search with. They stay in this page: the address only names them.

import { byId } from "./dom.js";

export class PictureShelf {
  /** @param {(key: string) => void} found Told the key of a new picture. */
  constructor(found) {
    this.found = found;
    this.kept = new Map();
    this.listenToButton();
    this.listenToDrops();
    window.addEventListener("paste", (event) => this.take(event.clipboardData?.files));
  }

  get(key) {
    return this.kept.get(key) ?? null;
  }

  take(files) {
    const picture = files?.[0];
    if (!picture) return;
    const key = `${this.kept.size + 1}-${picture.name || "picture"}`;
    this.kept.set(key, picture);
    this.found(key);
  }

  /** Draws a picture's middle into a square canvas; what is no picture is left to the service to name. */
  async draw(picture, canvas) {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    try {
      const pixels = await createImageBitmap(picture);
      const side = Math.min(pixels.width, pixels.height);
      const [left, top] = [(pixels.width - side) / 2, (pixels.height - side) / 2];
      context.drawImage(pixels, left, top, side, side, 0, 0, canvas.width, canvas.height);
      pixels.close();
    } catch {
      canvas.hidden = true;
    }
  }

  listenToButton() {
    const input = byId("picture-file");
    byId("picture").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.take(input.files);
      input.value = "";
    });
  }

  listenToDrops() {
    const curtain = byId("drop");
    const isFile = (event) => event.dataTransfer?.types.includes("Files");
    const show = (event, shown) => {
      if (!isFile(event)) return;
      event.preventDefault();
      curtain.hidden = !shown;
    };
    window.addEventListener("dragenter", (event) => show(event, true));
    window.addEventListener("dragover", (event) => show(event, true));
    window.addEventListener("dragleave", (event) => event.relatedTarget === null && show(event, false));
    window.addEventListener("drop", (event) => {
      show(event, false);
      if (isFile(event)) this.take(event.dataTransfer.files);
    });
  }
}
