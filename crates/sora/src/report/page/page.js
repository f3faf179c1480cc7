"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const shown = data.runs.map(() => true);
  let charts = [];

  // A place that the page cannot keep things in (a file opened with storage off) only loses the choice of the theme.
  const store = {
    get: () => { try { return localStorage.getItem("sora-theme"); } catch (_) { return null; } },
    set: (value) => { try { localStorage.setItem("sora-theme", value); } catch (_) {} },
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const asked = new URLSearchParams(location.search).get("theme");
  const theme = () => (asked === "dark" || asked === "light" ? asked : null) || store.get() || (system.matches ? "dark" : "light");

  const number = (value, digits) => value == null ? "\u2013" : value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });

  // Marks of catastrophic overfitting and rollbacks, on every chart over steps.
  function drawMarks(u) {
    const { ctx } = u;
    const ratio = devicePixelRatio || 1;
    let line = 0;
    data.runs.forEach((run, i) => {
      if (!shown[i]) return;
      run.marks.forEach((mark) => {
        const x = Math.round(u.valToPos(mark.step, "x", true));
        if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) return;
        ctx.save();
        ctx.strokeStyle = css(mark.alarm ? "--alarm" : "--muted");
        ctx.fillStyle = ctx.strokeStyle;
        ctx.lineWidth = 1.5 * ratio;
        ctx.setLineDash([5 * ratio, 4 * ratio]);
        ctx.beginPath();
        ctx.moveTo(x, u.bbox.top);
        ctx.lineTo(x, u.bbox.top + u.bbox.height);
        ctx.stroke();
        ctx.font = "600 " + 11 * ratio + "px Inter, system-ui, sans-serif";
        const right = x + ctx.measureText(mark.label).width + 8 * ratio < u.bbox.left + u.bbox.width;
        ctx.textAlign = right ? "left" : "right";
        const at = [x + (right ? 5 : -5) * ratio, u.bbox.top + (12 + 13 * (line++ % 6)) * ratio];
        // A rim of the paper's colour sets the words off from the lines under them.
        ctx.setLineDash([]);
        ctx.lineWidth = 3 * ratio;
        ctx.lineJoin = "round";
        ctx.strokeStyle = css("--card");
        ctx.strokeText(mark.label, ...at);
        ctx.fillText(mark.label, ...at);
        ctx.restore();
      });
    });
  }

  // Points without a neighbour: a line through them alone would not be seen.
  const lonely = (u, series) => {
    const values = u.data[series];
    const known = values.map((_, i) => i).filter((i) => values[i] != null);
    return known.length === 1 ? known : [];
  };

  function build(chart, holder) {
    const tables = [], series = [{ label: "step", value: (_, v) => number(v, 0) }], owner = [-1];
    const several = chart.lines.length > 1;
    data.runs.forEach((run, i) => {
      chart.lines.forEach((line) => {
        const values = run.series[line.key];
        if (!values || !values[0].length) return;
        tables.push(values);
        owner.push(i);
        series.push({
          label: run.name + (line.label ? ", " + line.label : ""),
          stroke: () => css("--c" + run.colour),
          width: line.width || 1.6,
          dash: line.dash || (several ? [] : run.dash),
          spanGaps: true,
          show: shown[i],
          points: several ? { size: 5 } : { size: 6, show: true, filter: (u, s) => lonely(u, s) },
          value: (_, v) => number(v, chart.digits),
        });
      });
    });
    if (!tables.length) {
      holder.insertAdjacentHTML("beforeend", "<p class=muted>no data</p>");
      return null;
    }
    const font = "12px Inter, system-ui, sans-serif";
    const axis = { stroke: () => css("--muted"), grid: { stroke: () => css("--grid"), width: 1 }, ticks: { stroke: () => css("--grid"), width: 1, size: 5 }, font, labelFont: font };
    const wide = holder.clientWidth - 24;
    const options = {
      width: wide,
      height: chart.wide ? 300 : 210,
      series,
      scales: { x: { time: false }, y: { range: chart.range ? () => chart.range : (_, low, high) => low == null ? [0, 1] : uPlot.rangeNum(low, high, 0.06, true) } },
      axes: [{ ...axis, label: "step", labelSize: 18, size: 34 }, { ...axis, label: chart.unit, labelSize: 18, size: 52 }],
      cursor: { sync: { key: "steps", setSeries: false }, drag: { x: true, y: false } },
      hooks: { draw: [drawMarks] },
      legend: { live: true },
    };
    const u = new uPlot(options, uPlot.join(tables), holder);
    u.owner = owner;
    return u;
  }

  function draw() {
    charts.forEach((u) => u && u.destroy());
    charts = data.charts.map((chart, i) => {
      const holder = document.getElementById("chart" + i);
      holder.querySelectorAll("p.muted").forEach((p) => p.remove());
      return build(chart, holder);
    });
  }

  // The values at the cursor, for screen readers: a line that they speak when it changes.
  function say(u, i) {
    const values = u.series.slice(1)
      .map((line, s) => line.show && u.data[s + 1][i] != null ? line.label + " " + line.value(u, u.data[s + 1][i]) : "")
      .filter(Boolean);
    u.root.parentNode.querySelector("[role=status]").textContent = "step " + number(u.data[0][i], 0) + ": " + (values.join("; ") || "no value");
  }

  // Arrow keys read values off, + and - change the scale, Escape shows everything.
  function onKey(event, i) {
    const u = charts[i];
    if (!u || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = u.data[0], { min, max } = u.scales.x;
    const zoom = (factor) => {
      const at = u.cursor.idx == null ? (min + max) / 2 : steps[u.cursor.idx];
      const low = at - (at - min) * factor, high = at + (max - at) * factor;
      u.setScale("x", { min: Math.max(low, steps[0]), max: Math.min(high, steps[steps.length - 1]) });
    };
    const move = (by) => {
      const now = u.cursor.idx == null ? (by > 0 ? -1 : steps.length) : u.cursor.idx;
      const next = Math.min(Math.max(now + by, 0), steps.length - 1);
      u.setCursor({ left: u.valToPos(steps[next], "x"), top: u.bbox.height / 3 / (devicePixelRatio || 1) });
      say(u, next);
    };
    const far = Math.max(1, Math.round(steps.length / 20));
    const actions = {
      ArrowLeft: () => move(event.shiftKey ? -far : -1),
      ArrowRight: () => move(event.shiftKey ? far : 1),
      Home: () => move(-steps.length),
      End: () => move(steps.length),
      "+": () => zoom(0.5),
      "=": () => zoom(0.5),
      "-": () => zoom(2),
      Escape: () => u.setScale("x", { min: steps[0], max: steps[steps.length - 1] }),
    };
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  }
  data.charts.forEach((_, i) => document.getElementById("chart" + i).addEventListener("keydown", (event) => onKey(event, i)));

  // Tables are sorted by a press on a column's head: numbers, the largest first, then texts.
  function sort(head) {
    const table = head.closest("table"), body = table.tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const value = (row) => {
      const cell = row.children[column];
      const text = (cell.dataset.v || cell.textContent).trim();
      const plain = Number(text.replace(/,/g, "").replace(/\s.*$/, ""));
      return text !== "" && Number.isFinite(plain) ? plain : text;
    };
    const numeric = [...body.rows].some((row) => typeof value(row) === "number");
    const before = head.getAttribute("aria-sort");
    const down = before === "none" ? numeric : before === "ascending";
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      const order = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
      return down ? -order : order;
    };
    [...body.rows].sort(compare).forEach((row) => body.append(row));
    [...head.parentNode.children].forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }
  document.querySelectorAll("th[aria-sort] .sort").forEach((button) => button.addEventListener("click", () => sort(button.closest("th"))));

  function apply(name) {
    root.dataset.theme = name;
    document.getElementById("theme").textContent = name === "dark" ? "Light" : "Dark";
    draw();
  }

  document.getElementById("theme").addEventListener("click", () => {
    const next = root.dataset.theme === "dark" ? "light" : "dark";
    store.set(next);
    apply(next);
  });
  system.addEventListener("change", () => apply(theme()));

  document.querySelectorAll("[data-toggle]").forEach((box) => {
    box.checked = true;
    box.addEventListener("change", () => {
      const run = Number(box.dataset.toggle);
      shown[run] = box.checked;
      charts.forEach((u) => u && u.batch(() => u.owner.forEach((owner, s) => { if (owner === run) u.setSeries(s, { show: box.checked }); })));
      document.querySelectorAll('[data-run="' + run + '"]').forEach((row) => row.classList.toggle("off", !box.checked));
    });
  });

  const fit = (width) => charts.forEach((u) => u && u.setSize({ width: width(u), height: u.height }));
  // Charts follow the width of the page, whatever changes it.
  let waiting = 0;
  const follow = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => fit((u) => u.root.parentNode.clientWidth - 24), 60);
  };
  new ResizeObserver(follow).observe(document.querySelector(".charts"));

  // On paper: light, every part open, charts as wide as their column there.
  let kept = null;
  addEventListener("beforeprint", () => {
    kept = { theme: root.dataset.theme, closed: [...document.querySelectorAll("main details:not([open])")] };
    kept.closed.forEach((part) => { part.open = true; });
    apply("light");
    fit((u) => u.root.parentNode.classList.contains("wide") ? 670 : 316);
  });
  addEventListener("afterprint", () => {
    if (!kept) return;
    kept.closed.forEach((part) => { part.open = false; });
    apply(kept.theme);
    kept = null;
  });

  apply(theme());
  root.dataset.charts = String(charts.filter(Boolean).length);
})();
