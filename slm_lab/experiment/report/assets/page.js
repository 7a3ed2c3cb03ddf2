"use strict";
(async () => {
  const fail = (message) => {
    const note = document.createElement("p");
    note.className = "missing";
    note.textContent = "The plots could not be drawn: " + message;
    document.querySelector("main").prepend(note);
  };
  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  if (typeof DecompressionStream === "undefined") {
    fail("this browser is too old (needs DecompressionStream: Chrome 80, Firefox 113, Safari 16.4)");
    return;
  }
  try {
    const library = document.createElement("script");
    library.textContent = await unpack("library");
    document.head.append(library);
    const figures = JSON.parse(await unpack("data"));
    const places = [...document.querySelectorAll(".plot")];
    const clocks = {};
    for (const f of figures) if (!f.x.x) Object.assign(clocks, f.x);
    let clock = Object.keys(clocks)[0];
    const off = new Set();

    const xOf = (trace) => trace.x ?? trace.xs[clock] ?? trace.xs[Object.keys(trace.xs)[0]];
    const yOf = (trace) => trace.y ?? trace.ys[clock] ?? trace.ys[Object.keys(trace.ys)[0]];
    const shown = (trace) => (trace.switch && off.has(trace.switch) ? false : true);
    const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: "#1f2328" };
    const axis = { gridcolor: "#eceef1", zeroline: false, linecolor: "#c9ced4", automargin: true, ticks: "outside", exponentformat: "power",
      tickcolor: "#c9ced4", ticklen: 4 };
    const layoutOf = (f, wide) => {
      const own = f.layout;
      const names = f.traces.filter((t) => t.showlegend !== false);
      return { font, margin: { l: 56, r: 14, t: 10, b: 40 }, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
        hovermode: "closest", hoverlabel: { font: { ...font, color: undefined }, namelength: -1 },
        legend: { orientation: "h", y: -0.2, font: { size: 11 } }, ...own,
        showlegend: own.showlegend ?? (wide && names.length > 1),
        xaxis: { ...axis, exponentformat: "SI", title: { text: f.x.x ?? f.x[clock], standoff: 6 }, ...own.xaxis },
        yaxis: { ...axis, title: { text: f.y, standoff: 6 }, ...own.yaxis } };
    };
    const config = { responsive: true, displaylogo: false, displayModeBar: true,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg" } };
    const draw = (i) => {
      const f = figures[i];
      const unit = f.x.x ? "" : " " + (clock === "frame" ? "frames" : "s");
      // ten digits: the value that the table holds
      const told = { hovertemplate: `%{y:.10~g}<br>%{x:,.10~g}${unit}<extra>%{fullData.name}</extra>` };
      const traces = f.traces.map((t) => ({ ...(t.hoverinfo || t.type === "bar" ? {} : told), ...t, x: xOf(t), y: yOf(t),
        visible: shown(t) }));
      return Plotly.newPlot(places[i], traces, layoutOf(f, places[i].parentElement.classList.contains("wide")), config);
    };

    const bar = document.getElementById("clock");
    if (Object.keys(clocks).length > 1) {
      for (const [key, title] of Object.entries(clocks)) {
        const button = document.createElement("button");
        button.textContent = title.replace(/ \(.*/, "");
        button.dataset.clock = key;
        button.setAttribute("aria-pressed", key === clock);
        button.onclick = async () => {
          clock = key;
          for (const b of bar.children) b.setAttribute("aria-pressed", b === button);
          for (let i = 0; i < figures.length; i++) if (!figures[i].x.x) await draw(i);
        };
        bar.append(button);
      }
    }
    for (const button of document.querySelectorAll("button[data-switch]")) {
      button.onclick = async () => {
        const name = button.dataset.switch;
        const hide = !off.has(name);
        hide ? off.add(name) : off.delete(name);
        button.setAttribute("aria-pressed", !hide);
        for (let i = 0; i < figures.length; i++) {
          const mine = figures[i].traces.flatMap((t, k) => (t.switch === name ? [k] : []));
          if (mine.length) await Plotly.restyle(places[i], { visible: !hide }, mine);
        }
      };
    }
    for (let i = 0; i < figures.length; i++) await draw(i);
    // plots are as wide as they were drawn, so the page takes the width of the paper first
    addEventListener("beforeprint", () => {
      document.querySelectorAll("details").forEach((d) => (d.open = true));
      document.body.classList.add("paper");
      // resize waits a moment before it draws, which is too late here
      for (const p of places) Plotly.relayout(p, { width: p.clientWidth, height: p.clientHeight });
    });
    addEventListener("afterprint", () => {
      document.body.classList.remove("paper");
      for (const p of places) Plotly.relayout(p, { width: null, height: null, autosize: true });
    });
    document.documentElement.dataset.drawn = figures.length;
  } catch (error) {
    fail(error.message);
    throw error;
  }
})();
