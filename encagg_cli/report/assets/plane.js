"use strict";
// The plane of a round: uploads, known-benign ones, clusters, and from a trace the radius and the second clustering.

function planeSpec(width, square) {
  const axis = { format: ".3~g", tickCount: 6 };
  const x = { field: "x", type: "quantitative", title: "first axis", axis, scale: { domain: square.x, nice: false } };
  const y = { field: "y", type: "quantitative", title: "second axis", axis, scale: { domain: square.y, nice: false } };
  const ring = (size, stroke, strokeWidth) => ({ type: "point", shape: "circle", filled: false, size, stroke, strokeWidth, opacity: 1, tooltip: null, clip: true });
  const text = (dx, dy, align, weight) => ({ type: "text", dx, dy, align, fontWeight: weight, color: color("text"), tooltip: null });
  const outcome = { field: "outcome", type: "nominal", scale: outcomeScale(), legend: null };
  return {
    width, height: width,
    layer: [
      { name: "radius", data: { name: "circles" }, mark: { type: "line", interpolate: "linear-closed", strokeDash: [4, 3], opacity: 0.8, tooltip: null, clip: true, color: color("muted") },
        encoding: { x, y, detail: { field: "id" }, order: { field: "step" } } },
      { name: "pseudo", data: { name: "pseudo" }, mark: { type: "text", fontSize: 11, color: color("muted"), tooltip: null, clip: true },
        encoding: { x, y, text: { field: "sign" } } },
      { name: "known", data: { name: "known" }, mark: ring(260, color("text"), 1.8), encoding: { x, y } },
      { name: "chosen", data: { name: "chosen" }, mark: ring(520, color("link"), 3.5), encoding: { x, y } },
      // Hollow: noise, in no cluster.
      { name: "uploads", data: { name: "rows" }, mark: { type: "point", size: 90, strokeWidth: 1.6, opacity: 1, cursor: "pointer", clip: true },
        encoding: { x, y, tooltip: TOOLTIP, shape: outcomeShape(), stroke: outcome, fill: outcome,
          fillOpacity: { condition: { test: "datum.cluster === -1", value: 0.01 }, value: 1 } } },
      { name: "stacks", data: { name: "stacks" }, mark: text(9, 9, "left", "normal"), encoding: { x, y, text: { field: "label" } } },
      { name: "clusters", data: { name: "clusters" }, mark: text(0, -16, "center", "bold"), encoding: { x, y, text: { field: "label" } } },
    ],
    resolve: { scale: { stroke: "shared", fill: "shared" } },
  };
}

// What the plane shows: of the first clustering from the verdicts, of the second from the trace.
function planeOf(method, traced, second, close) {
  const all = rowsOf(method).filter((row) => row.place === state.round);
  let rows = all, radius = traced.radius, pseudo = [];
  if (second) {
    const place = new Map(traced.second.client.map((client, i) => [data.clients[client], i]));
    rows = all.filter((row) => place.has(row.client)).map((row) => {
      const i = place.get(row.client), cluster = traced.second.cluster[i];
      return { ...row, x: traced.second.x[i], y: traced.second.y[i], cluster, clusterName: clusterName(cluster) };
    });
    radius = traced.second.radius;
    pseudo = traced.second.pseudo.filter(([x, y]) => x !== null && y !== null).map(([x, y, inside]) => ({ x, y, sign: inside ? "×" : "+" }));
  } else if (all.every((row) => row.y === null)) {
    rows = all.map((row) => ({ ...row, y: 0 })); // a method that uses one axis alone
  }
  rows = rows.filter((row) => row.x !== null && row.y !== null);
  const known = rows.filter((row) => row.trusted);
  const circles = radius ? known.flatMap((row) => Array.from({ length: 49 }, (_, step) => ({ id: row.client, step,
    x: row.x + radius * Math.cos(step * Math.PI / 24), y: row.y + radius * Math.sin(step * Math.PI / 24) }))) : [];
  const whole = squareOf([...rows, ...circles, ...pseudo]);
  // Close up: the known-benign, and accepted clients around them.
  const core = rows.filter((row) => row.trusted || row.accepted);
  const square = close && core.length ? squareOf([...core, ...circles]) : whole;
  const span = square.x[1] - square.x[0];
  const within = ({ x, y }) => x >= square.x[0] && x <= square.x[1] && y >= square.y[0] && y <= square.y[1];
  const outside = rows.length - rows.filter(within).length;
  return { rows, known, circles, pseudo, square, radius, outside, missing: all.length - rows.length, all: all.length,
    stacks: stacksOf(rows, span).filter(within), clusters: clustersOf(rows.filter(within)) };
}

// The same units on both axes: a radius is a circle.
function squareOf(points) {
  const bounds = (key) => points.reduce(([least, most], point) => [Math.min(least, point[key]), Math.max(most, point[key])], [Infinity, -Infinity]);
  const [x, y] = [bounds("x"), bounds("y")];
  const half = 0.6 * (Math.max(x[1] - x[0], y[1] - y[0]) || Math.abs(x[0]) || 1);
  const around = ([least, most]) => [(least + most) / 2 - half, (least + most) / 2 + half];
  return { x: around(x), y: around(y) };
}

// Uploads that lie on each other (copies, say) look like one: say how many they are.
function stacksOf(rows, span) {
  const stacks = new Map();
  for (const row of rows) {
    const key = `${Math.round(100 * row.x / span)} ${Math.round(100 * row.y / span)}`;
    stacks.set(key, [...(stacks.get(key) || []), row]);
  }
  return [...stacks.values()].filter((stack) => stack.length > 1).map((stack) => ({ x: stack[0].x, y: stack[0].y, label: `×${stack.length}` }));
}

// A cluster's name stands over its highest upload.
function clustersOf(rows) {
  const highest = new Map();
  for (const row of rows) {
    if (row.cluster === null || row.cluster < 0) continue;
    const found = highest.get(row.cluster);
    if (!found || row.y > found.y) highest.set(row.cluster, row);
  }
  return [...highest.values()].map((row) => ({ x: row.x, y: row.y, label: `cluster ${row.cluster}` }));
}

function clusterName(cluster) { return cluster === null ? "–" : cluster === -1 ? "noise" : String(cluster); }

function drawPlane() {
  const method = data.methods[state.method], traced = (data.traces[String(data.rounds[state.round])] || {})[method.name] || {};
  const second = state.second && Boolean(traced.second);
  const plane = planeOf(method, traced, second, state.close);
  byId("clustering-choice").hidden = !traced.second;
  byId("close-choice").hidden = !plane.rows.length;
  if (!plane.rows.length) {
    forget("chart-plane");
    byId("plane-hint").textContent = "This method placed no client of this round in a plane.";
    return Promise.resolve();
  }
  const hints = ["Ringed: known-benign clients. Hollow: noise, in no cluster."];
  if (plane.radius) hints.push("Dashed: the radius ε around known-benign clients.");
  if (plane.pseudo.length) hints.push("Small × and +: pseudo-gradients that fell inside and outside the benign cluster.");
  if (second) hints.push(`The second clustering is of the ${plane.rows.length} uploads that the first one did not reject.`);
  else if (plane.missing) hints.push(`${plane.missing} of ${plane.all} uploads have no place in the plane.`);
  if (plane.outside) hints.push(`${plane.outside} lie outside this close-up.`);
  byId("plane-hint").textContent = hints.join(" ");
  const { rows, known, circles, pseudo, stacks, clusters } = plane;
  const chosen = rows.filter((row) => row.client === state.client);
  return draw("chart-plane", planeSpec(Math.max(200, Math.min(byId("chart-plane").clientWidth - 75, 440)), plane.square),
    { rows, known, chosen, circles, pseudo, stacks, clusters }, choose);
}
