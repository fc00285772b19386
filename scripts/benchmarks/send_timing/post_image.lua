-- wrk2: posts the image of the environment variable IMAGE.
-- IMAGE=cat.png wrk2 -t1 -c1 -R100 -d12s -s post_image.lua http://127.0.0.1:8080/predict

local file = assert(io.open(os.getenv("IMAGE"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "image/png"
file:close()
