// Creates elements and formats numbers.

const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
export const get = (id) => document.getElementById(id);

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const integer = (value) => (value === null || value === undefined ? "–" : whole.format(Math.round(value)));
export const short = (value) => (Math.abs(value) < 10000 ? integer(value) : compact.format(value));
export const percent = (share, digits = 0) => (Number.isFinite(share) ? `${(share * 100).toFixed(digits)} %` : "–");
/** A number that may be negative, with a typographic minus sign. */
export const signed = (value, digits) => value.toFixed(digits).replace("-", "−");

const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

/** A number of seconds in the largest unit that divides it: "1 minute", "24 hours". */
export function span(seconds) {
  const [size, unit] = UNITS.find(([length]) => seconds % length === 0 && seconds >= length) ?? [1, "second"];
  return `${integer(seconds / size)} ${unit}${seconds / size === 1 ? "" : "s"}`;
}

export const clock = (unix) => new Date(unix * 1000).toLocaleTimeString("en-GB");

/** A price or another positive number, to three significant digits and without trailing zeros. */
export function figure(value) {
  if (value === 0) return "0";
  return Math.abs(value) >= 1000 ? integer(value) : String(Number(value.toPrecision(3)));
}

/** The colour step of a tier, from 0 to 4: the longer the tier, the stronger the colour. */
export function step(tier, tiers) {
  const place = tiers.indexOf(tier);
  return place < 0 || tiers.length < 2 ? 2 : Math.round((place / (tiers.length - 1)) * 4);
}
