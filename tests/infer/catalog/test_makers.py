"""Our makers: real models of transformers' layout, through the hub, into bundles that search."""
