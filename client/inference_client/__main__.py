from inference_client.command import main

main()
