// Draws requests by tier and the price over time, how full a window was, and the prices of one decision.

import { figure, integer, s, step } from "./dom.js";

const LEFT = 44;
const RIGHT = 10;
const BARS = 120;

/** The seconds up to now in BARS buckets of equal length: {at, price, tiers, requests}, oldest first. */
export function buckets(seconds, now) {
  const first = seconds.size ? Math.min(...seconds.keys()) : now;
  const width = now - first > BARS ? 5 : 1;
  const last = Math.floor(now / width);
  const made = Array.from({ length: BARS }, (_, i) => ({ at: (last - BARS + 1 + i) * width, tiers: {}, requests: 0, price: null }));
  for (const second of [...seconds.values()].sort((a, b) => a.at - b.at)) {
    const bucket = made[Math.floor(second.at / width) - last + BARS - 1];
    if (!bucket) continue;
    bucket.requests += second.sums.requests;
    bucket.price = second.price;
    for (const [tier, count] of Object.entries(second.sums.tiers)) bucket.tiers[tier] = (bucket.tiers[tier] ?? 0) + count;
  }
  return { made, span: width * BARS };
}

function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 5, 10].map((factor) => factor * unit).find((candidate) => candidate >= value);
}

function grid(width, y, label) {
  return [
    s("line", { x1: LEFT, x2: width - RIGHT, y1: y, y2: y, class: "grid" }),
    s("text", { x: LEFT - 6, y: y + 3.5, class: "tick", "text-anchor": "end" }, label),
  ];
}

export function drawTiers(place, seconds, tiers, now) {
  const width = Math.max(place.clientWidth, 240);
  const [top, mid, gap, low] = [16, 150, 34, 54];
  const height = mid + gap + low + 22;
  const { made, span } = buckets(seconds, now);
  const most = 2 * roundUp(Math.max(...made.map((bucket) => bucket.requests), 4) / 2); // even, because half of it labels the middle line
  const slot = (width - LEFT - RIGHT) / BARS;
  const y = (count) => mid - (count / most) * (mid - top);
  const parts = [0, most / 2, most].flatMap((count) => grid(width, y(count), integer(count)));
  made.forEach((bucket, i) => {
    let below = 0;
    for (const tier of tiers) {
      const count = bucket.tiers[tier];
      if (!count) continue;
      parts.push(s("rect", {
        x: LEFT + i * slot, width: Math.max(slot - 0.8, 0.8), y: y(below + count), height: y(below) - y(below + count),
        class: `tier-fill step-${step(tier, tiers)}`,
      }));
      below += count;
    }
  });
  parts.push(...drawPrice(made, width, slot, mid + gap, low));
  const minutes = span / 60;
  parts.push(
    s("text", { x: LEFT, y: 10, class: "label" }, `requests per ${span / BARS === 1 ? "second" : `${span / BARS} seconds`}`),
    s("text", { x: LEFT, y: mid + gap - 8, class: "label" }, "price of 1,000 tokens, in probability of a right answer"),
    s("text", { x: LEFT, y: height - 5, class: "tick" }, `${minutes} minutes ago`),
    s("text", { x: width - RIGHT, y: height - 5, class: "tick", "text-anchor": "end" }, "now"),
  );
  const total = made.reduce((sum, bucket) => sum + bucket.requests, 0);
  const shares = tiers.map((tier) => `${tier} ${integer(made.reduce((sum, bucket) => sum + (bucket.tiers[tier] ?? 0), 0))}`);
  const text = `Requests of the last ${minutes} minutes by tier: ${shares.join(", ")}; ${integer(total)} in all.`;
  place.replaceChildren(s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": text, "data-total": total }, parts));
}

function drawPrice(made, width, slot, top, tall) {
  const known = made.filter((bucket) => bucket.price !== null);
  const most = roundUp(Math.max(...known.map((bucket) => bucket.price * 1.1), 0.001));
  const y = (price) => top + tall - (price / most) * tall;
  const parts = [0, most].flatMap((price) => grid(width, y(price), figure(price)));
  let path = "";
  let last = null;
  made.forEach((bucket, i) => {
    last = bucket.price ?? last;
    if (last === null) return;
    const x = LEFT + i * slot;
    path += `${path ? "L" : "M"}${x.toFixed(1)} ${y(last).toFixed(1)}L${(x + slot).toFixed(1)} ${y(last).toFixed(1)}`;
  });
  if (path) parts.push(s("path", { d: path, class: "price-line" }));
  return parts;
}

/** How full a window was over the last two minutes; `past` has [Unix time, share of the limit], oldest first. */
export function fillChart(past, now) {
  const [wide, tall] = [120, 40];
  const points = past.map(([at, share]) => `${(wide - (now - at)).toFixed(1)} ${(tall * (1 - Math.min(share, 1))).toFixed(1)}`);
  const start = wide - (now - past[0][0]);
  const area = s("path", { d: `M${start.toFixed(1)} ${tall}L${points.join("L")}L${wide} ${tall}Z`, class: "fill-area" });
  return s("svg", { viewBox: `0 0 ${wide} ${tall}`, preserveAspectRatio: "none", class: "fill", "aria-hidden": "true" }, area);
}

/** Which rung wins at which price, on a logarithmic scale, with a mark at the price of the decision. */
export function priceRuler(width, ranges, price, tiers) {
  const edges = ranges.flatMap((range) => [range.low, range.high]).concat(price).filter((edge) => edge > 0);
  const [from, to] = edges.length ? [Math.min(...edges) / 4, Math.max(...edges) * 4] : [0.001, 1];
  const [left, right] = [1, width - 1];
  const x = (value) => {
    const share = Math.log(Math.max(value, from) / from) / Math.log(to / from);
    return left + share * (right - left);
  };
  const parts = [];
  let labelled = -Infinity; // where the last number ends, so that two do not overlap
  for (const { tier, label, low, high } of ranges) {
    const [a, b] = [x(low), high === null ? right : x(high)];
    parts.push(s("rect", { x: a, width: Math.max(b - a - 1, 0.5), y: 22, height: 22, class: `tier-fill step-${step(tier, tiers)}` }));
    if (b - a > label.length * 7.2 + 10) parts.push(s("text", { x: (a + b) / 2, y: 37, "text-anchor": "middle", class: `in-tier step-${step(tier, tiers)}` }, label));
    if (high !== null && b - labelled > 40) {
      labelled = b;
      const anchor = b < 30 ? "start" : b > width - 30 ? "end" : "middle";
      parts.push(s("text", { x: b, y: 58, "text-anchor": anchor, class: "tick" }, figure(high)));
    }
  }
  const at = x(price);
  const anchor = at < 60 ? "start" : at > width - 60 ? "end" : "middle";
  parts.push(
    s("path", { d: `M${at} 26V20m-5 -6h10l-5 7z`, class: "needle" }),
    s("text", { x: at, y: 9, "text-anchor": anchor, class: "label strong" }, `price ${figure(price)}`),
  );
  const words = ranges.map(({ label, low, high }) => `${label} from ${figure(low)}${high === null ? " up" : ` to ${figure(high)}`}`);
  return s("svg", { width, height: 64, viewBox: `0 0 ${width} 64`, role: "img", "aria-label": `Rung by price: ${words.join(", ")}. The price was ${figure(price)}.` }, parts);
}
