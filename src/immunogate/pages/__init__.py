"""Reports as one file each: pages of HTML with drawings and tables, that load nothing and run no script.

`markup` escapes, `page` is the shell, `table` and `svg` what stands in it, `style` how it looks in light, dark, on a
phone and on paper. Standard library only; the same input gives the same bytes.
"""
