// Two faults of the theme: the search dialog has no name, and code that scrolls cannot be reached by the keyboard.
(function () {
  "use strict";
  const search = document.querySelector(".md-search[role='dialog']");
  if (search) search.setAttribute("aria-label", "Search");

  function update() {
    for (const code of document.querySelectorAll("pre > code")) {
      if (code.scrollWidth > code.clientWidth) code.setAttribute("tabindex", "0");
      else code.removeAttribute("tabindex");
    }
  }
  update();
  window.addEventListener("resize", update);
})();
