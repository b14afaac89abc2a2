// What a page of the course does with JavaScript: it follows a lab and the settings of a view, lets Tab indent code, and
// goes to a result.
// Without it every page works: forms are forms, and a running lab is looked at again.

import "./theme-button.js";

const run = document.querySelector("#run[data-running]");
if (run) (await import("./follow.js")).follow(run);

const view = document.querySelector("#view");
if (view) (await import("./view.js")).live(view);

const code = document.querySelector("#code");
if (code) {
  let leaves = false;
  code.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      leaves = true;
      return;
    }
    if (event.key === "Tab" && !leaves && !event.shiftKey) {
      event.preventDefault();
      code.setRangeText("    ", code.selectionStart, code.selectionEnd, "end");
    }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      code.form.requestSubmit(code.form.querySelector('[value="run"]'));
    }
    leaves = false;
  });
}

document.querySelector("#result")?.focus();
