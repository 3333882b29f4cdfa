"""Reports for people: a shift or lot on one page, and gauge studies. Pure figures from stored rows; pages render them."""
