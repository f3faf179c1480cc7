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
        ctx.fillText(mark.label, x + (right ? 5 : -5) * ratio, u.bbox.top + (12 + 13 * (i % 4)) * ratio);
        ctx.restore();
      });
    });
  }

  function build(chart, holder) {
    const tables = [], series = [{ label: "step", value: (_, v) => number(v, 0) }], owner = [-1];
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
          dash: line.dash || (chart.lines.length > 1 ? [] : run.dash),
          spanGaps: true,
          show: shown[i],
          points: { show: chart.lines.length > 1 ? undefined : false, size: 5 },
          value: (_, v) => number(v, chart.digits),
        });
      });
    });
    if (!tables.length) {
      holder.insertAdjacentHTML("beforeend", "<p class=muted>no data</p>");
      return null;
    }
    const axis = { stroke: () => css("--muted"), grid: { stroke: () => css("--grid"), width: 1 }, ticks: { stroke: () => css("--grid"), width: 1, size: 5 }, font: "12px Inter, system-ui, sans-serif", labelFont: "12px Inter, system-ui, sans-serif" };
    const options = {
      width: holder.clientWidth - 24,
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

  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => charts.forEach((u) => u && u.setSize({ width: u.root.parentNode.clientWidth - 24, height: u.height })), 120);
  });

  apply(theme());
  root.dataset.charts = String(charts.filter(Boolean).length);
})();
