// Two faults of the theme: the search dialog has no name, and without a mouse it removes code that scrolls from the
// order of the keyboard.
(function () {
  "use strict";
  const search = document.querySelector(".md-search[role='dialog']");
  if (search) search.setAttribute("aria-label", "Search");

  function update() {
    for (const code of document.querySelectorAll("pre > code")) {
      if (code.scrollWidth > code.clientWidth && code.tabIndex !== 0) code.setAttribute("tabindex", "0");
    }
  }
  update();
  window.addEventListener("resize", update);
  new MutationObserver(update).observe(document.body, { subtree: true, attributeFilter: ["tabindex"] });
})();
