// What the pages share: signs, times, the picture of a part under its heat layer, which outlines the regions.

const SVG = "http://www.w3.org/2000/svg";

export function json(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

export function badge(sign) {
  return element("span", { class: `badge is-${sign.icon}` }, icon(sign.icon), sign.word);
}

// Microseconds UTC as local time of day.
export function clock(t, seconds = true) {
  const options = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (seconds) options.second = "2-digit";
  return new Date(t / 1000).toLocaleTimeString([], options);
}

export function lasted(microseconds) {
  const seconds = Math.max(0, Math.floor(microseconds / 1e6));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

// Shows a part in a box. A picture that is not written yet is asked for again.
export class PartView {
  constructor(box) {
    this.box = box;
    this.heat = true;
    this.part = null;
  }

  show(part) {
    this.part = part;
    const links = part?.links ?? {};
    if (!links.preview) {
      this.box.replaceChildren(element("p", { class: "empty" }, "No picture"));
      return;
    }
    const picture = element("img", { alt: `Picture of part ${part.id}, ${part.verdict}` });
    this.load(picture, links.preview, part, 0);
    picture.addEventListener("load", () => {
      if (this.part !== part) return;
      const layers = [picture];
      if (links.heat) {
        const heat = element("img", { alt: "", class: "heat" });
        heat.hidden = !this.heat;
        this.load(heat, links.heat, part, 0);
        layers.push(heat);
      }
      this.box.replaceChildren(...layers);
    });
  }

  load(picture, address, part, tries) {
    picture.src = tries ? `${address}&try=${tries}` : address;
    picture.onerror = () => {
      if (this.part !== part) return;
      if (tries < 5) setTimeout(() => this.load(picture, address, part, tries + 1), 250 * (tries + 1));
      else if (!picture.classList.contains("heat")) {
        this.box.replaceChildren(element("p", { class: "empty" }, "Picture not available"));
      }
    };
  }

  toggle(on) {
    this.heat = on;
    const heat = this.box.querySelector("img.heat");
    if (heat) heat.hidden = !on;
  }
}
