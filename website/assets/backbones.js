// The searchable table of reference/backbones.md. Rows: see website/backbone_table.py.
(function () {
  "use strict";
  const STRIDES = ["1/4", "1/8", "1/16"];
  const STEP = 100;
  const FIRST = [
    { name: "backbone", key: (row) => row[0] },
    { name: "parameters (M)", key: (row) => row[3], number: true, text: (row) => (row[3] / 1e6).toFixed(1) },
    { name: "MACs (G)", key: (row) => row[4], number: true, text: (row) => (row[4] / 1e9).toFixed(2) },
  ];
  const LAST = [
    { name: "sizes", key: (row) => row[2] },
    { name: "nodes", key: (row) => row[1], number: true },
  ];

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function percent(share) {
    return `${Math.round(share * 100)}%`;
  }

  // Words separated by spaces must all occur; * matches any text, as in `densemble backbones PATTERN`.
  function matcher(query) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const patterns = words.map((word) => new RegExp(word.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replace(/\*/g, ".*")));
    return (row) => patterns.every((pattern) => pattern.test(row[0].toLowerCase()));
  }

  function start(root) {
    const state = { query: "", stride: 2, sizes: "", most: Infinity, column: 0, down: false, shown: STEP };
    const search = element("input", { type: "search", placeholder: "resnet, timm/convnext*, lite", autocomplete: "off" });
    const stride = element("select", {}, ...STRIDES.map((name, at) => element("option", { value: at }, name)));
    stride.value = "2";
    const names = [...new Set(BACKBONES.map((row) => row[2]))];
    const sizes = element("select", {}, element("option", { value: "" }, "all"),
      ...names.map((name) => element("option", { value: name }, name)));
    const most = element("input", { type: "number", min: "0", step: "any", placeholder: "no limit" });
    const count = element("p", { class: "backbones__count", role: "status" });
    const head = element("tr");
    const body = element("tbody");
    const more = element("button", { class: "backbones__more", type: "button" });
    const table = element("table", { class: "backbones__table" }, element("thead", {}, head), body);
    const scroll = element("div", { class: "backbones__scroll", tabindex: "0", role: "region", "aria-label": "Table of backbones" }, table);

    function columns() {
      const cut = (row) => row[5 + state.stride];
      const value = (at) => (row) => (cut(row).length ? cut(row)[at] : -1);
      const or = (text) => (row) => (cut(row).length ? text(cut(row)) : "–");
      return [...FIRST,
        { name: `cut at ${STRIDES[state.stride]}`, key: value(0), text: or((c) => c[0]), code: true },
        { name: "feature map", key: value(1), text: or((c) => `${c[1]}x${c[2]}`), number: true },
        { name: "parameters kept", key: value(3), text: or((c) => percent(c[3])), number: true },
        { name: "MACs saved", key: value(4), text: or((c) => percent(c[4])), number: true },
        ...LAST];
    }

    function draw() {
      const all = columns();
      const fits = matcher(state.query);
      const rows = BACKBONES.filter((row) => fits(row) && (!state.sizes || row[2] === state.sizes) && row[3] <= state.most * 1e6);
      const key = all[state.column].key;
      rows.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (state.down ? -1 : 1));
      head.replaceChildren(...all.map((column, at) => {
        const sorted = at === state.column;
        const button = element("button", { type: "button" }, column.name + (sorted ? (state.down ? " ▼" : " ▲") : ""));
        button.addEventListener("click", () => {
          Object.assign(state, { down: sorted && !state.down, column: at });
          draw();
          head.children[at].firstChild.focus();
        });
        return element("th", { scope: "col", class: column.number ? "number" : "text",
          "aria-sort": sorted ? (state.down ? "descending" : "ascending") : "none" }, button);
      }));
      body.replaceChildren(...rows.slice(0, state.shown).map((row) => element("tr", {}, ...all.map((column) => {
        const text = String(column.text ? column.text(row) : column.key(row));
        const content = column.code && text !== "–" ? element("code", {}, text) : text;
        return element("td", { class: column.number ? "number" : "text" }, content);
      }))));
      const shown = Math.min(state.shown, rows.length);
      count.textContent = `${rows.length} of ${BACKBONES.length} backbones` + (shown < rows.length ? `, the first ${shown} shown` : "");
      more.textContent = `Show ${Math.min(STEP, rows.length - shown)} more`;
      more.hidden = shown >= rows.length;
    }

    function change(values) {
      Object.assign(state, values, { shown: STEP });
      draw();
    }
    search.addEventListener("input", () => change({ query: search.value }));
    stride.addEventListener("change", () => change({ stride: Number(stride.value) }));
    sizes.addEventListener("change", () => change({ sizes: sizes.value }));
    most.addEventListener("input", () => change({ most: most.value === "" ? Infinity : Number(most.value) }));
    more.addEventListener("click", () => { state.shown += STEP; draw(); });
    root.replaceChildren(
      element("div", { class: "backbones__controls" },
        element("label", {}, "Name contains", search), element("label", {}, "Stride of the cut, at most", stride),
        element("label", {}, "Input sizes", sizes), element("label", {}, "Million parameters, at most", most)),
      count, scroll, more);
    draw();
  }

  const root = document.getElementById("backbones-table");
  if (!root) return;
  const data = document.createElement("script");
  data.src = "../assets/backbones-data.js";
  data.addEventListener("load", () => start(root));
  document.head.append(data);
})();
