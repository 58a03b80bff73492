"use strict";
// What the pictures are, as Vega-Lite specifications. Colours are those of the style sheet, which knows light and dark.

const OUTCOMES = [
  ["caught", "poisoned, rejected"], ["missed", "poisoned, accepted"], ["lost", "honest, rejected"],
  ["kept", "accepted"], ["rejected", "rejected, truth unknown"],
];

function color(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }

function config() {
  const text = color("text"), line = color("line");
  return {
    background: null, font: "system-ui, sans-serif",
    axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line, labelLimit: 120 },
    legend: { labelColor: text, titleColor: text }, title: { color: text }, view: { stroke: line },
  };
}

function outcomeScale() {
  const names = OUTCOMES.map(([name]) => name);
  return { domain: names, range: names.map(color) };
}

const TOOLTIP = [
  { field: "client", title: "client" }, { field: "round", title: "round" }, { field: "verdict", title: "verdict" },
  { field: "reason", title: "reason" }, { field: "score", title: "suspicion" }, { field: "cluster", title: "cluster" },
  { field: "truth", title: "truth" }, { field: "known", title: "known-benign" },
];

function matrixSpec(width, rounds, clients) {
  return {
    data: { name: "rows" }, width, height: Math.max(80, Math.min(clients * 14, 1400)),
    mark: { type: "rect", cursor: "pointer", tooltip: true },
    encoding: {
      x: { field: "round", type: "ordinal", title: "round", axis: { labelOverlap: true, labelAngle: 0 } },
      y: { field: "client", type: "ordinal", title: null, axis: { labelOverlap: true } },
      color: { field: "outcome", type: "nominal", scale: outcomeScale(), legend: null },
      stroke: { condition: { test: "datum.chosen", value: color("text") }, value: color("ground") },
      strokeWidth: { condition: { test: "datum.chosen", value: 1.5 }, value: rounds > 60 ? 0 : 0.5 },
      tooltip: TOOLTIP,
    },
  };
}

function planeSpec(width, square) {
  const x = { field: "x", type: "quantitative", title: "first axis", scale: { domain: square.x, nice: false } };
  const y = { field: "y", type: "quantitative", title: "second axis", scale: { domain: square.y, nice: false } };
  return {
    width, height: width,
    layer: [
      { data: { name: "circles" }, mark: { type: "line", interpolate: "linear-closed", strokeDash: [4, 3], opacity: 0.7, tooltip: null },
        encoding: { x, y, detail: { field: "id" }, order: { field: "step" }, color: { value: color("muted") } } },
      { data: { name: "pseudo" }, mark: { type: "point", shape: "cross", size: 18, opacity: 0.6, tooltip: null },
        encoding: { x, y, color: { value: color("muted") } } },
      { data: { name: "rows" }, mark: { type: "point", filled: true, size: 90, opacity: 0.95, stroke: color("ground"), strokeWidth: 0.8, cursor: "pointer" },
        encoding: {
          x, y, color: { field: "outcome", type: "nominal", scale: outcomeScale(), legend: null }, tooltip: TOOLTIP,
          shape: { field: "shape", type: "nominal", legend: null,
            scale: { domain: ["known-benign", "client", "rejected"], range: ["diamond", "circle", "triangle-up"] } },
          size: { condition: { test: "datum.chosen", value: 260 }, value: 90 },
        } },
    ],
  };
}

function suspicionSpec(width) {
  const x = { field: "round", type: "quantitative", title: "round", axis: { tickMinStep: 1 } };
  const y = { field: "score", type: "quantitative", title: "suspicion" };
  return {
    width, height: 260,
    layer: [
      { data: { name: "others" }, mark: { type: "line", opacity: 0.25, strokeWidth: 1, tooltip: null },
        encoding: { x, y, detail: { field: "client" }, color: { value: color("muted") } } },
      { data: { name: "threshold" }, mark: { type: "rule", strokeDash: [5, 4], tooltip: null },
        encoding: { y: { field: "value", type: "quantitative" }, color: { value: color("missed") } } },
      { data: { name: "rows" }, mark: { type: "line", strokeWidth: 2 },
        encoding: { x, y, detail: { field: "client" }, color: { value: color("link") } } },
      { data: { name: "rows" }, mark: { type: "point", filled: true, size: 70, cursor: "pointer" },
        encoding: { x, y, color: { field: "outcome", type: "nominal", scale: outcomeScale(), legend: null }, tooltip: TOOLTIP } },
    ],
  };
}

function methodsSpec(width, count) {
  return {
    data: { name: "rows" }, width, height: 180,
    mark: { type: "line", point: true, tooltip: true, strokeWidth: 1.8 },
    encoding: {
      x: { field: "round", type: "quantitative", title: "round", axis: { tickMinStep: 1 } },
      y: { field: "share", type: "quantitative", title: "rejected", axis: { format: "%" }, scale: { domain: [0, 1] } },
      color: { field: "method", type: "nominal", title: null, scale: { scheme: "tableau10" },
        legend: count > 1 ? { orient: "bottom", columns: 2, labelLimit: 220 } : null },
      strokeDash: count > 1 ? { field: "method", type: "nominal", legend: null } : { value: [1, 0] },
      tooltip: [{ field: "method" }, { field: "round" }, { field: "share", format: ".1%", title: "rejected" }],
    },
  };
}
