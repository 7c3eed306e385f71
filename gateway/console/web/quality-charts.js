// Draws shares with their intervals, and what the head expected against what was observed.

import { h, integer, percent, s } from "./dom.js";

const WIDE = 180;

/** A share with its 95 % interval, on a scale from 0 to 1, with a mark where it was expected. */
export function intervalBar({ mean, low, high }, expected) {
  const x = (share) => 2 + share * (WIDE - 4);
  const label = `${percent(mean, 1)}, 95 % interval ${percent(low, 1)} to ${percent(high, 1)}; expected ${percent(expected, 1)}`;
  return s("svg", { class: "interval", viewBox: `0 0 ${WIDE} 16`, role: "img", "aria-label": label },
    s("line", { x1: 2, x2: WIDE - 2, y1: 8, y2: 8, class: "grid" }),
    s("line", { x1: x(low), x2: x(high), y1: 8, y2: 8, class: "span" }),
    s("line", { x1: x(expected), x2: x(expected), y1: 2, y2: 14, class: "expected" }),
    s("circle", { cx: x(mean), cy: 8, r: 3.5, class: "point" }));
}

/** Each tenth of P(right): the share that was right, with its interval. On the diagonal the head is as sure as it should be. */
export function calibrationPlot(bins) {
  const [wide, tall, left, low] = [420, 260, 44, 34];
  const x = (share) => left + share * (wide - left - 22);
  const y = (share) => tall - low - share * (tall - low - 10);
  const parts = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    s("line", { x1: x(0), x2: x(1), y1: y(share), y2: y(share), class: "grid" }),
    s("text", { x: left - 6, y: y(share) + 3.5, class: "tick", "text-anchor": "end" }, percent(share)),
    s("text", { x: x(share), y: tall - low + 14, class: "tick", "text-anchor": "middle" }, percent(share)),
  ]);
  parts.push(s("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "expected" }));
  const most = Math.max(...bins.map((bin) => bin.rated));
  for (const { expected, right, rated } of bins) {
    parts.push(
      s("line", { x1: x(expected), x2: x(expected), y1: y(right.low), y2: y(right.high), class: "span" }),
      s("circle", { cx: x(expected), cy: y(right.mean), r: 3 + 4 * Math.sqrt(rated / most), class: "point" }));
  }
  parts.push(s("text", { x: x(0.5), y: tall - 4, class: "label", "text-anchor": "middle" }, "expected P(right)"));
  const words = bins.map(({ expected, right, rated }) => `${percent(right.mean)} of ${integer(rated)} where ${percent(expected)} was expected`);
  return h("div", {}, s("svg", { class: "calibration", viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `Right answers: ${words.join("; ")}.` }, parts),
    h("p", { class: "small" }, "Share of answers that was right, by what the head expected. On the dashed line it is as sure as it should be; below, too sure."));
}
