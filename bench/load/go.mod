module albatros/bench

go 1.19
