"""Progress: what the code says about its work (:mod:`phases`), and how it is shown (:mod:`display`)."""
