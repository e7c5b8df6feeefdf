// The paper index: filters on top of a table that is complete without them.
(function () {
  "use strict";
  const start = () => {
    const index = document.querySelector(".paper-index");
    if (!index) return;
    const form = index.querySelector(".paper-filter");
    const rows = Array.from(index.querySelectorAll("tbody tr"));
    const count = index.querySelector(".paper-count");
    if (!form || !rows.length) return;
    const fields = ["q", "part", "kind", "verdict"];

    const apply = () => {
      const want = Object.fromEntries(fields.map((name) => [name, form.elements[name].value.trim().toLowerCase()]));
      const words = want.q.split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const fits = words.every((word) => row.dataset.words.includes(word))
          && (!want.part || row.dataset.part === want.part)
          && (!want.kind || row.dataset.kind === want.kind)
          && (!want.verdict || row.dataset.verdicts.split(" ").includes(want.verdict));
        row.hidden = !fits;
        shown += fits;
      }
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
        const text = (row) => row.children[column].textContent.trim();
        const order = [...rows].sort((a, b) => text(a).localeCompare(text(b), "en", { numeric: true }));
        body.append(...(down ? order.reverse() : order));
      });
    });

    const asked = new URLSearchParams(location.search);
    for (const name of fields) if (asked.has(name)) form.elements[name].value = asked.get(name);
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
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
