"use strict";
// What the pictures are, as Vega-Lite specifications. Colours are those of the style sheet, which knows light and dark.
// No fact is told by colour alone: each outcome also has a sign, the same in every picture, in the legend and the tables.

const OUTCOMES = [
  { name: "caught", title: "poisoned, rejected", sign: "✚", shape: "cross" },
  { name: "missed", title: "poisoned, accepted", sign: "◆", shape: "diamond" },
  { name: "lost", title: "honest, rejected", sign: "▲", shape: "triangle-up" },
  { name: "rejected", title: "rejected, truth unknown", sign: "■", shape: "square" },
  { name: "kept", title: "accepted", sign: "●", shape: "circle" },
];
const LARGEST_LINES = 4; // more methods than that are told apart by rows, not by lines

function color(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }

function config() {
  const text = color("text"), line = color("line");
  return {
    aria: false, background: null, font: "system-ui, sans-serif",
    axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line, labelLimit: 120,
      titleFontWeight: "normal" },
    legend: { labelColor: text, titleColor: text, symbolStrokeColor: text }, view: { stroke: line },
  };
}

function outcomeScale(prefix = "") {
  return { domain: OUTCOMES.map((one) => one.name), range: OUTCOMES.map((one) => color(prefix + one.name)) };
}

function outcomeShape() {
  return { field: "outcome", type: "nominal", legend: null,
    scale: { domain: OUTCOMES.map((one) => one.name), range: OUTCOMES.map((one) => one.shape) } };
}

const TOOLTIP = [
  { field: "client", title: "client" }, { field: "round", title: "round" }, { field: "verdict", title: "verdict" },
  { field: "reason", title: "reason" }, { field: "score", title: "suspicion" },
  { field: "clusterName", title: "cluster" }, { field: "truth", title: "truth" }, { field: "known", title: "known-benign" },
].map((one) => ({ ...one, type: "nominal" }));

function roundAxis() {
  const first = data.rounds[0], last = data.rounds[data.rounds.length - 1], margin = first === last ? 0.5 : 0;
  return { field: "round", type: "quantitative", title: "round",
    axis: { format: "d", ...(data.rounds.length <= 12 ? { values: data.rounds, labelOverlap: true } : {}) },
    scale: { domain: [first - margin, last + margin], nice: false } };
}

function matrixSpec(width, clients) {
  const cell = clients.length > 60 ? 11 : clients.length > 30 ? 14 : 18;
  const height = Math.max(60, Math.min(clients.length * cell, 1400));
  const rounds = data.rounds.length, side = Math.min(height / clients.length, (width - 120) / rounds);
  const x = { field: "round", type: "ordinal", title: "round", scale: { domain: data.rounds }, axis: { labelOverlap: true, labelAngle: 0 } };
  const y = { field: "client", type: "ordinal", title: null, scale: { domain: clients }, axis: { labelOverlap: true, labelLimit: width < 500 ? 80 : 150 } };
  const outline = { type: "rect", fill: null, stroke: color("text"), strokeWidth: 2, tooltip: null };
  return {
    width, height, autosize: { type: "fit-x", contains: "padding" },
    layer: [
      { name: "cells", data: { name: "rows" }, mark: { type: "rect", cursor: "pointer", stroke: color("ground"), strokeWidth: side < 8 ? 0 : 0.5 },
        encoding: { x, y, tooltip: TOOLTIP, color: { field: "outcome", type: "nominal", scale: outcomeScale("cell-"), legend: null } } },
      // Small cells have no room for a sign: there the tooltip and the table tell.
      { name: "signs", data: { name: "signs" }, mark: { type: "point", filled: true, cursor: "pointer", opacity: 1, size: Math.min(45, side * side / 3) },
        encoding: { x, y, tooltip: TOOLTIP, shape: outcomeShape(),
          fill: { field: "outcome", type: "nominal", scale: outcomeScale("on-"), legend: null } } },
      { name: "round_frame", data: { name: "chosenRound" }, mark: outline, encoding: { x, y: { value: 0 }, y2: { value: height } } },
      { name: "client_frame", data: { name: "chosenClient" }, mark: outline, encoding: { y, x: { value: 0 }, x2: { value: "width" } } },
    ],
    resolve: { scale: { color: "independent", fill: "independent" } },
    signs: side >= 8,
  };
}

function suspicionSpec(width, square) {
  const x = roundAxis();
  const y = { field: "score", type: "quantitative", title: "suspicion", scale: { domain: square }, axis: { format: ".3~g" } };
  return {
    width, height: 300, autosize: { type: "fit-x", contains: "padding" },
    layer: [
      { data: { name: "others" }, mark: { type: "line", opacity: Math.max(0.06, Math.min(0.35, 7 / data.clients.length)), strokeWidth: 1,
        point: data.rounds.length === 1, tooltip: null, color: color("muted") },
        encoding: { x, y, detail: { field: "client" } } },
      { data: { name: "now" }, mark: { type: "rule", color: color("muted"), tooltip: null }, encoding: { x } },
      { name: "threshold", data: { name: "threshold" }, mark: { type: "rule", strokeDash: [5, 4], color: color("text"), tooltip: null }, encoding: { y } },
      { data: { name: "threshold" }, mark: { type: "text", align: "right", baseline: "bottom", dx: -3, dy: -3, color: color("text"), tooltip: null },
        encoding: { x: { value: "width" }, y, text: { field: "label" } } },
      { data: { name: "rows" }, mark: { type: "line", strokeWidth: 2, tooltip: null, color: color("link") },
        encoding: { x, y, detail: { field: "client" } } },
      { name: "points", data: { name: "rows" }, mark: { type: "point", filled: true, size: 90, opacity: 1, cursor: "pointer", stroke: color("ground"), strokeWidth: 0.8 },
        encoding: { x, y, tooltip: TOOLTIP, shape: outcomeShape(), color: { field: "outcome", type: "nominal", scale: outcomeScale(), legend: null } } },
    ],
  };
}

function methodsSpec(width, names) {
  const tooltip = [{ field: "method", type: "nominal" }, { field: "round", type: "nominal" },
    { field: "share", type: "quantitative", format: ".1%", title: "rejected" }];
  const shared = { data: { name: "rows" }, width, autosize: { type: "fit-x", contains: "padding" } };
  if (names.length > LARGEST_LINES) {
    return { ...shared, height: names.length * 18, mark: { type: "rect" },
      encoding: {
        x: { field: "round", type: "ordinal", title: "round", scale: { domain: data.rounds }, axis: { labelOverlap: true, labelAngle: 0 } },
        y: { field: "method", type: "ordinal", title: null, scale: { domain: names }, axis: { labelLimit: width < 500 ? 100 : 220 } },
        color: { field: "share", type: "quantitative", title: "rejected", scale: { scheme: "cividis", domain: [0, 1] },
          legend: { format: "%", orient: "bottom", direction: "horizontal" } },
        tooltip,
      } };
  }
  const legend = names.length > 1 ? { orient: "bottom", columns: width < 500 ? 1 : 2, labelLimit: width - 60 } : null;
  const by = (range) => ({ field: "method", type: "nominal", title: null, legend, scale: { domain: names, range } });
  return { ...shared, height: 180, mark: { type: "line", strokeWidth: 2, point: { size: 60, filled: true } },
    encoding: {
      x: roundAxis(),
      y: { field: "share", type: "quantitative", title: "rejected", axis: { format: "%", tickCount: 5 }, scale: { domain: [0, 1] } },
      color: by(["caught", "missed", "third", "text"].map(color)),
      shape: by(["circle", "square", "triangle-up", "diamond"]),
      strokeDash: by([[1, 0], [6, 3], [2, 2], [8, 3, 2, 3]]),
      tooltip,
    } };
}
