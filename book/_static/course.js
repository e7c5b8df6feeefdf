// The paper index: filters on top of a table that is complete without them.
(function () {
  "use strict";
  const start = () => {
    const index = document.querySelector(".paper-index");
    if (!index) return;
    const form = index.querySelector(".paper-filter");
    const rows = Array.from(index.querySelectorAll("tbody tr[data-part]"));
    const heads = Array.from(index.querySelectorAll("tbody .part-row"));
    const count = index.querySelector(".paper-count");
    if (!form || !rows.length) return;
    const fields = ["q", "part", "kind", "verdict"];
    const words = new Map(rows.map((row) => [row, (row.id + " " + row.textContent).toLowerCase()]));
    let sorted = false;

    const apply = () => {
      const want = Object.fromEntries(fields.map((name) => [name, form.elements[name].value.trim().toLowerCase()]));
      const asked = want.q.split(/\s+/).filter(Boolean), parts = new Set();
      let shown = 0;
      for (const row of rows) {
        const fits = (!want.part || row.dataset.part === want.part)
          && (!want.kind || row.dataset.kind === want.kind)
          && (!want.verdict || row.dataset.verdicts.split(" ").includes(want.verdict))
          && asked.every((word) => words.get(row).includes(word));
        row.hidden = !fits;
        shown += fits;
        if (fits) parts.add("papers-" + row.dataset.part);
      }
      for (const head of heads) head.hidden = sorted || !parts.has(head.id);
      count.textContent = shown === rows.length ? `${shown} papers` : `${shown} of ${rows.length} papers`;
      const query = new URLSearchParams(fields.filter((name) => want[name]).map((name) => [name, want[name]])).toString();
      try { history.replaceState(null, "", (query ? "?" + query : location.pathname) + location.hash); } catch (e) { /* file: */ }
    };

    // a column's head sorts by it, and once more the other way round; rows keep the course's order until then
    const body = index.querySelector("tbody");
    index.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        index.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = (row) => (column ? row.children[column] : row.querySelector(".title")).textContent.trim();
        const order = rows.map((row) => [text(row), row]).sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true }));
        body.append(...(down ? order.reverse() : order).map((pair) => pair[1]));
        sorted = true;
        apply();
      });
    });

    // who follows a link to a line finds it open
    const open = () => {
      const row = rows.find((one) => "#" + one.id === location.hash);
      if (row) row.querySelector("details").open = true;
    };

    const asked = new URLSearchParams(location.search);
    for (const name of fields) if (asked.has(name)) form.elements[name].value = asked.get(name);
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
    addEventListener("hashchange", open);
    open();
    if (fields.some((name) => asked.has(name))) apply();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

// On a phone a figure of several panels keeps a size at which it can be read, and scrolls in its own box.
(function () {
  "use strict";
  const fit = (image) => {
    const figure = image.closest("figure");
    const wide = innerWidth < 700 && image.naturalWidth > 600;
    figure.classList.toggle("wide", wide);
    if (wide) figure.tabIndex = 0;
    else figure.removeAttribute("tabindex");
  };
  const start = () => {
    const images = Array.from(document.querySelectorAll(".bd-article figure > img, .bd-article figure > a > img"));
    for (const image of images) {
      if (image.complete) fit(image);
      image.addEventListener("load", () => fit(image));
    }
    addEventListener("resize", () => images.forEach(fit));
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

// What is wider than its box scrolls in it, by keyboard too: tables written in Markdown get a name; see also course.css.
(function () {
  "use strict";
  const start = () => {
    const fit = () => {
      for (const box of document.querySelectorAll(".bd-article .pst-scrollable-table-container")) {
        const heads = Array.from(box.querySelectorAll("thead th"), (head) => head.textContent.trim()).filter(Boolean);
        const wide = box.scrollWidth > box.clientWidth;
        const said = { role: "region", tabindex: "0", "aria-label": `Table: ${heads.join(", ")}` };
        for (const [name, value] of Object.entries(said)) {
          if (wide) box.setAttribute(name, value);
          else box.removeAttribute(name);
        }
      }
    };
    fit();
    addEventListener("resize", fit);
    addEventListener("load", fit); // fonts and formulae change widths
    window.MathJax?.startup?.promise?.then(fit);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

// The sidebar's triangles say which part they open.
(function () {
  "use strict";
  const start = () => {
    for (const mark of document.querySelectorAll(".bd-links li > details > summary")) {
      const part = mark.closest("li").querySelector(":scope > a");
      if (part) mark.setAttribute("aria-label", `Chapters of ${part.textContent.trim()}`);
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
